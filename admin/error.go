package admin

import (
	"errors"
	"fmt"
	"net/http"

	"mainstay/engine"
	"mainstay/topology"
)

// A Code tells a program why the API did not do what it was asked for.
type Code string

const (
	CodeUsage    Code = "bad_request"
	CodeMethod   Code = "method_not_allowed"
	CodeTooLarge Code = "too_large"
	CodeNotFound Code = "not_found"
	CodeInvalid  Code = "invalid_topology" // the file has problems or cannot be read; what ran before still runs
	CodeRefused  Code = "refused"          // the file is valid but cannot be applied; what ran before still runs
	CodeFailed   Code = "failed"
)

// status returns the HTTP status that goes with the code.
func (c Code) status() int {
	switch c {
	case CodeUsage:
		return http.StatusBadRequest
	case CodeMethod:
		return http.StatusMethodNotAllowed
	case CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case CodeNotFound:
		return http.StatusNotFound
	case CodeInvalid:
		return http.StatusUnprocessableEntity
	case CodeRefused:
		return http.StatusConflict
	default:
		return http.StatusInternalServerError
	}
}

// An Error is the API's answer when it did not do what it was asked for.
type Error struct {
	Message  string            `json:"error"`
	Code     Code              `json:"code"`
	Problems topology.Problems `json:"problems,omitempty"` // with CodeInvalid
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

func newError(code Code, format string, args ...any) *Error {
	return &Error{Message: fmt.Sprintf(format, args...), Code: code}
}

// asError returns err as the API tells it. What is neither known nor about the file has the code otherwise.
func asError(err error, otherwise Code) *Error {
	var known *Error
	var problems topology.Problems
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &problems):
		return &Error{Message: "the file has problems", Code: CodeInvalid, Problems: problems}
	case errors.As(err, &tooLarge):
		return newError(CodeTooLarge, "the body is larger than %d bytes", tooLarge.Limit)
	case errors.Is(err, engine.ErrNoService), errors.Is(err, engine.ErrNoGeneration):
		return newError(CodeNotFound, "%s", err)
	default:
		return newError(otherwise, "%s", err)
	}
}
