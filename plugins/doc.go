// Package plugins is the folder of the plugins that run in-process. What it holds itself is a test
// only: each plugin beside the reference's binary, on the same configuration. Where they differ is
// listed, with the reason, in testdata/differences.txt.
package plugins
