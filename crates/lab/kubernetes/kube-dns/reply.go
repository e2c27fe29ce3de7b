package main

import "golang.org/x/net/dns/dnsmessage"

// plain is what a UDP answer may hold when the question does not say more (RFC 1035, 4.2.1).
const plain = 512

// reply answers one message, or gives nil for what is none. Answers longer than limit are cut, and say so, whereupon the client
// asks again by TCP; with no limit given (0) the question's own counts.
func (z zone) reply(query []byte, limit int) []byte {
	var parser dnsmessage.Parser
	header, err := parser.Start(query)
	if err != nil || header.Response {
		return nil
	}
	questions, err := parser.AllQuestions()
	if err != nil || len(questions) != 1 {
		return z.refuse(header)
	}
	question := questions[0]
	if limit == 0 {
		limit = wanted(&parser)
	}
	answer := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: header.ID, Response: true, OpCode: header.OpCode, Authoritative: true, RecursionDesired: header.RecursionDesired,
			RecursionAvailable: true,
		},
		Questions: questions,
	}
	known := false
	if question.Class == dnsmessage.ClassINET && header.OpCode == 0 {
		answer.Answers, known = z.answer(question.Name.String(), question.Type)
	}
	if !known {
		answer.RCode = dnsmessage.RCodeNameError
	}
	packed, err := answer.Pack()
	if err != nil {
		return z.refuse(header)
	}
	if len(packed) > limit {
		answer.Answers, answer.Truncated = nil, true
		if packed, err = answer.Pack(); err != nil {
			return z.refuse(header)
		}
	}
	return packed
}

// wanted is how long an answer by UDP the sender of this question takes (RFC 6891).
func wanted(parser *dnsmessage.Parser) int {
	if parser.SkipAllAnswers() != nil || parser.SkipAllAuthorities() != nil {
		return plain
	}
	for {
		header, err := parser.AdditionalHeader()
		if err != nil {
			return plain
		}
		if header.Type == dnsmessage.TypeOPT {
			return max(plain, int(header.Class))
		}
		if parser.SkipAdditional() != nil {
			return plain
		}
	}
}

func (z zone) refuse(header dnsmessage.Header) []byte {
	message := dnsmessage.Message{Header: dnsmessage.Header{ID: header.ID, Response: true, RCode: dnsmessage.RCodeFormatError}}
	packed, err := message.Pack()
	if err != nil {
		return nil
	}
	return packed
}
