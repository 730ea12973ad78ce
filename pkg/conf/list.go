package conf

import "encoding/json"

// List is a CNI configuration list whose fields are kept as they were written. The zero value is not usable; ParseList makes one.
type List struct {
	top     map[string]json.RawMessage
	plugins []map[string]json.RawMessage
}
