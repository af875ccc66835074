package proxy

import (
	"bufio"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mainstay/topology"
)

// A reply has its fields in order, and as much content as it says.
func TestReplies(t *testing.T) {
	replies := []reply{
		redirection("https://a/"), refusal(reasonNoRoute, reasonNoRoute.answer().saying("no \"such\" thing"), "id"),
		substitute(reasonNoInstance, &topology.Response{Status: 204}, "id"),
		substitute(reasonNoInstance, &topology.Response{Status: 503, ContentType: "text/html", Body: "<p>later"}, "id"),
	}
	for _, why := range []reason{reasonBadRequest, reasonBadMethod, reasonHoldFull, reasonTimeoutHeader, reasonInternalFailure} {
		replies = append(replies, refusal(why, why.answer(), "id"))
	}
	for _, r := range replies {
		if !slices.IsSortedFunc(r.fields, func(a, b replyField) int { return strings.Compare(a.name, b.name) }) {
			t.Errorf("fields %v", r.fields)
		}
		head := r.appendHead(nil, "Mon, 23 Nov 2026 00:00:00 GMT", "close")
		res, err := http.ReadResponse(bufio.NewReader(io.MultiReader(strings.NewReader(string(head)), strings.NewReader(r.content))), nil)
		if err != nil {
			t.Errorf("%s: %v", head, err)
			continue
		}
		b, err := io.ReadAll(res.Body)
		if err != nil || string(b) != r.content || res.StatusCode != r.status || !res.Close {
			t.Errorf("%s: read %q, %v, close %t", head, b, err, res.Close)
		}
	}
}

// What the engine sends is what the reply says, byte for byte.
func TestRepliesAreSentAsTheyAre(t *testing.T) {
	r := newRig(t, topology.Route{Host: "none", PathPrefix: "/", Service: "none"})
	c, br := r.dial()
	for _, test := range []struct {
		why     reason
		request string
	}{
		{reasonNoRoute, "GET / HTTP/1.1\r\nHost: other\r\n\r\n"},
		{reasonNoInstance, "GET / HTTP/1.1\r\nHost: none\r\n\r\n"},
		{reasonBadMethod, "TRACE / HTTP/1.1\r\nHost: none\r\n\r\n"},
	} {
		io.WriteString(c, test.request)
		var got strings.Builder
		res, err := http.ReadResponse(bufio.NewReader(io.TeeReader(br, &got)), nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		want := refusal(test.why, test.why.answer(), res.Header.Get("X-Request-Id"))
		if all := string(want.appendHead(nil, res.Header.Get("Date"), "")) + want.content; got.String() != all {
			t.Errorf("got\n%s\nwant\n%s", got.String(), all)
		}
		if !regexp.MustCompile(`^[A-Z2-7]{26}$`).MatchString(res.Header.Get("X-Request-Id")) {
			t.Errorf("id %q", res.Header.Get("X-Request-Id"))
		}
	}
}
