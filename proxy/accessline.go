package proxy

import (
	"strconv"
	"time"
	"unicode/utf8"

	"lbnode/proxy/http1"
)

// entry is what the access log tells of one request.
type entry struct {
	outcome
	began    time.Time
	id       []byte
	client   []byte
	method   []byte
	host     []byte
	path     []byte
	protocol string
	account  http1.Account
}

// note adds a request to the access log, if there is one.
func (p *Proxy) note(x *http1.Exchange, began time.Time, o outcome) {
	if p.config.AccessLog == nil {
		return
	}
	p.config.AccessLog.add(&entry{
		outcome: o, began: began, id: x.RequestID(), client: x.Client(), method: x.Method(), host: x.Host(), path: x.Path(),
		protocol: protocolLabel(x), account: x.Account(),
	})
}

// noteRefused does so for a request that could not be read.
func (p *Proxy) noteRefused(x *http1.Exchange, why *http1.Fault) {
	if p.config.AccessLog != nil {
		now := time.Now()
		p.note(x, now, outcome{code: why.Status, ended: now, end: endOfFault(why), reason: reasonOf(why)})
	}
}

// usualLine is room for most lines, in bytes.
const usualLine = 512

const dateTime = time.DateOnly + "T" + time.TimeOnly

// line is where a line is made.
type line struct {
	text   []byte
	second int64               // since 1970, that stamp is
	stamp  [len(dateTime)]byte // the date and time, which cost as much to write as all the rest
}

// write makes the line of a request; node is JSON.
func (l *line) write(e *entry, node []byte) {
	out := append(l.text[:0], `{"time":"`...)
	out = l.appendTime(out, e.began)
	out = append(append(out, `","node":`...), node...)
	l.text = e.appendTo(out)
}

// appendTime writes a time as RFC 3339 has it, to the millisecond.
func (l *line) appendTime(out []byte, t time.Time) []byte {
	if second := t.Unix(); second != l.second || l.stamp[0] == 0 {
		l.second = second
		t.UTC().AppendFormat(l.stamp[:0], dateTime)
	}
	out = append(append(out, l.stamp[:]...), '.')
	return append(appendThousandth(out, t.Nanosecond()/1e6), 'Z')
}

// appendTo writes what follows the time and the node.
func (e *entry) appendTo(out []byte) []byte {
	out = appendQuoted(append(out, `,"request_id":`...), e.id)
	out = appendQuoted(append(out, `,"client":`...), e.client)
	out = appendQuoted(append(out, `,"method":`...), e.method)
	out = appendQuoted(append(out, `,"host":`...), e.host)
	out = appendQuoted(append(out, `,"path":`...), e.path)
	out = append(append(out, `,"protocol":"`...), e.protocol...)
	out = strconv.AppendInt(append(out, `","status":`...), int64(e.code), 10)
	out = strconv.AppendInt(append(out, `,"bytes_in":`...), e.account.BytesIn, 10)
	out = strconv.AppendInt(append(out, `,"bytes_out":`...), e.account.BytesOut, 10)
	out = appendQuoted(append(out, `,"pool":`...), e.pool)
	out = appendQuoted(append(out, `,"backend":`...), e.backend)
	out = strconv.AppendInt(append(out, `,"retries":`...), int64(e.retries), 10)
	out = appendMillis(append(out, `,"connect_ms":`...), e.account.Connect)
	first := time.Duration(0)
	if !e.account.FirstByte.IsZero() {
		first = e.account.FirstByte.Sub(e.began)
	}
	out = appendMillis(append(out, `,"first_byte_ms":`...), first)
	out = appendMillis(append(out, `,"total_ms":`...), e.ended.Sub(e.began))
	out = append(append(out, `,"end":"`...), e.end...)
	out = appendQuoted(append(out, `","reason":`...), e.reason)
	return append(out, "}\n"...)
}

// appendMillis writes milliseconds with three decimals.
func appendMillis(out []byte, d time.Duration) []byte {
	micros := max(d.Microseconds(), 0)
	return appendThousandth(append(strconv.AppendInt(out, micros/1000, 10), '.'), int(micros%1000))
}

// appendThousandth writes n, which is below 1000, with three digits.
func appendThousandth(out []byte, n int) []byte {
	return append(out, byte('0'+n/100), byte('0'+n/10%10), byte('0'+n%10))
}

// appendQuoted writes text as a JSON string (RFC 8259, section 7). Bytes that are not
// UTF-8, which clients may send, become U+FFFD.
func appendQuoted[T string | []byte](out []byte, text T) []byte {
	out = append(out, '"')
	from := 0
	for at := 0; at < len(text); {
		c := text[at]
		if c >= utf8.RuneSelf {
			if r, size := decodeRune(text[at:min(at+utf8.UTFMax, len(text))]); r != utf8.RuneError || size > 1 {
				at += size
				continue
			}
		} else if c >= ' ' && c != '"' && c != '\\' {
			at++
			continue
		}
		out = append(out, text[from:at]...)
		out = appendEscaped(out, c)
		at++
		from = at
	}
	return append(append(out, text[from:]...), '"')
}

func decodeRune[T string | []byte](text T) (rune, int) {
	var room [utf8.UTFMax]byte
	return utf8.DecodeRune(room[:copy(room[:], text)])
}

func appendEscaped(out []byte, c byte) []byte {
	const digits = "0123456789abcdef"
	switch {
	case c == '"' || c == '\\':
		return append(out, '\\', c)
	case c >= utf8.RuneSelf:
		return append(out, "\\ufffd"...)
	}
	return append(out, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
}
