package http1

// An Error is why a message was refused. The connection that it came on cannot be used any more: where the next message would begin is
// unknown.
type Error struct {
	Status int    // that a client is answered: 4xx or 5xx for what it sent; 502 for what an instance sent
	Text   string // what is wrong, for people: "a field line is folded"
	Clause string // that says so: "RFC 9112, section 5.2"
}

// Error implements error.
func (e *Error) Error() string { return e.Text + " (" + e.Clause + ")" }

// refusal returns e as an error that is nil if e is.
func (e *Error) refusal() error {
	if e == nil {
		return nil
	}
	return e
}

// fromInstance returns e as the error of what an instance sent.
func (e *Error) fromInstance() *Error {
	if e == nil || e.Status == 502 {
		return e
	}
	return &Error{Status: 502, Text: e.Text, Clause: e.Clause}
}

// Lines.
var (
	errBareCR       = &Error{400, "a carriage return stands alone", "RFC 9112, section 2.2"}
	errBareLF       = &Error{400, "a line ends without a carriage return", "RFC 9112, section 2.2"}
	errEmptyLines   = &Error{400, "there are empty lines before the request", "RFC 9112, section 2.2"}
	errHeadTooLong  = &Error{431, "the header section is too long", "RFC 6585, section 5"}
	errTooMany      = &Error{431, "there are too many field lines", "RFC 6585, section 5"}
	errTLS          = &Error{400, "TLS is spoken where plain HTTP is", "RFC 9112, section 3"}
	errHTTP2        = &Error{505, "HTTP/2 is spoken where HTTP/1.1 is", "RFC 9113, section 3.4"}
	errMethod       = &Error{400, "the method is not a token", "RFC 9110, section 9.1"}
	errMethodLength = &Error{501, "the method is too long", "RFC 9112, section 3"}
	errTarget       = &Error{400, "the request target is missing or begins with a space", "RFC 9112, section 3"}
	errTargetByte   = &Error{400, "the request target has a character that must be escaped", "RFC 9112, section 3.2"}
	errTargetLength = &Error{414, "the request target is too long", "RFC 9112, section 3"}
	errNoVersion    = &Error{400, "the request line has no version", "RFC 9112, section 3"}
	errVersion      = &Error{400, "the first line has no valid version", "RFC 9112, section 2.3"}
	errMajor        = &Error{505, "the version is not HTTP/1", "RFC 9110, section 15.6.6"}
	errLineEnd      = &Error{400, "the request line goes on after the version", "RFC 9112, section 3"}
	errStatus       = &Error{502, "the status code is not three digits", "RFC 9112, section 4"}
	errStatusRange  = &Error{502, "the status code is below 100", "RFC 9110, section 15"}
	errReason       = &Error{502, "the reason phrase has a control character", "RFC 9112, section 4"}
)

// Fields.
var (
	errLeading   = &Error{400, "there is white space before the first field", "RFC 9112, section 2.2"}
	errFold      = &Error{400, "a field line is folded", "RFC 9112, section 5.2"}
	errEmptyName = &Error{400, "a field has no name", "RFC 9110, section 5.1"}
	errName      = &Error{400, "a field name is not a token", "RFC 9110, section 5.1"}
	errNameSpace = &Error{400, "there is white space in or after a field name", "RFC 9112, section 5.1"}
	errNoColon   = &Error{400, "a field line has no colon", "RFC 9112, section 5"}
	errValue     = &Error{400, "a field value has a control character", "RFC 9110, section 5.5"}
	errOptions   = &Error{400, "Connection names too many fields", "RFC 9110, section 7.6.1"}
	errExpect    = &Error{417, "the expectation is unknown", "RFC 9110, section 10.1.1"}
	errSwitch    = &Error{502, "the protocol was switched without being asked", "RFC 9110, section 15.2.2"}
	errInterim   = &Error{502, "there are too many interim responses", "RFC 9110, section 15.2"}
	errForm      = &Error{400, "the request target is neither a path nor a URL", "RFC 9112, section 3.2"}
	errScheme    = &Error{400, "the request target's scheme is neither http nor https", "RFC 9110, section 4.2"}
	errAuthority = &Error{400, "the request target's authority is malformed", "RFC 9112, section 3.2.2"}
	errUser      = &Error{400, "the request target has user information", "RFC 9110, section 4.2.4"}
	errConnect   = &Error{400, "the target of CONNECT is not host and port", "RFC 9112, section 3.2.3"}
	errAsterisk  = &Error{400, "the target * is for OPTIONS only", "RFC 9112, section 3.2.4"}
	errNoHost    = &Error{400, "the request has no Host", "RFC 9112, section 3.2"}
	errTwoHosts  = &Error{400, "the request has more than one Host", "RFC 9112, section 3.2"}
	errHost      = &Error{400, "the Host is malformed", "RFC 9112, section 3.2"}
)

// Framing.
var (
	errBothLengths = &Error{400, "there are both Content-Length and Transfer-Encoding", "RFC 9112, section 6.3"}
	errTwoLengths  = &Error{400, "there is more than one Content-Length", "RFC 9112, section 6.3"}
	errLength      = &Error{400, "Content-Length is not a number", "RFC 9110, section 8.6"}
	errLengthRange = &Error{400, "Content-Length is too large", "RFC 9110, section 8.6"}
	errTwoCodings  = &Error{400, "there is more than one Transfer-Encoding", "RFC 9112, section 6.1"}
	errOldCoding   = &Error{400, "there is a Transfer-Encoding in HTTP/1.0", "RFC 9112, section 6.1"}
	errCoding      = &Error{400, "the last transfer coding is not chunked", "RFC 9112, section 6.3"}
	errCodingTwice = &Error{400, "the content is chunked more than once", "RFC 9112, section 7.1"}
	errCodingOther = &Error{501, "there is a transfer coding other than chunked", "RFC 9112, section 6.1"}

	errChunkSize      = &Error{400, "a chunk size is not a hexadecimal number", "RFC 9112, section 7.1"}
	errChunkRange     = &Error{400, "a chunk is too large", "RFC 9112, section 7.1"}
	errChunkLine      = &Error{400, "the line of a chunk size ends without CRLF", "RFC 9112, section 7.1"}
	errChunkSpace     = &Error{400, "there is white space after a chunk size", "RFC 9112, section 7.1.1"}
	errChunkEnd       = &Error{400, "a chunk does not end with CRLF", "RFC 9112, section 7.1"}
	errExtension      = &Error{400, "a chunk extension has a control character", "RFC 9112, section 7.1.1"}
	errExtensions     = &Error{400, "chunk extensions are too long", "RFC 9112, section 7.1.1"}
	errTrailerLength  = &Error{431, "the trailer section is too long", "RFC 9112, section 7.1.2"}
	errTrailerField   = &Error{400, "the trailer section has a field that frames or routes", "RFC 9110, section 6.5.1"}
	errIncompleteHead = &Error{502, "the connection ended before the response's header section", "RFC 9112, section 8"}
	errIncomplete     = &Error{502, "the connection ended within the content", "RFC 9112, section 8"}
)
