"""What ``verify`` looks at, a noun a file. Like all of the reader it writes, locks and unlinks nothing."""
