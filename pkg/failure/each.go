package failure

// Each returns the errors that were joined, for who says each in a line: also those of joined ones
// among them, the error itself if it is none of several, and none of nil.
func Each(err error) (all []error) {
	joined, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // the outermost is meant
	switch {
	case err == nil:
		return nil
	case !ok:
		return []error{err}
	}
	for _, one := range joined.Unwrap() {
		all = append(all, Each(one)...)
	}
	return all
}
