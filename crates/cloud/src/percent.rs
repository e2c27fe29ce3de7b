//! Percent-encoding as SigV4 and the Query API want it: everything but RFC 3986's unreserved characters, upper-case hex, `%20` for a space.

/// Appends `text` to `out`, encoded. `keep_slash` leaves `/` alone (paths).
pub(crate) fn encode_into(out: &mut String, text: &str, keep_slash: bool) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b'/' if keep_slash => out.push('/'),
            _ => {
                out.push('%');
                for nibble in [byte >> 4, byte & 15] {
                    out.push(
                        char::from_digit(u32::from(nibble), 16)
                            .unwrap_or('0')
                            .to_ascii_uppercase(),
                    );
                }
            }
        }
    }
}

/// `text` encoded, `/` too.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    encode_into(&mut out, text, false);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(text: &str) -> Option<String> {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            if byte == b'%' {
                let hex = [rest.next()?, rest.next()?];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
            } else {
                bytes.push(byte);
            }
        }
        String::from_utf8(bytes).ok()
    }

    #[test]
    fn reserved_characters_are_encoded_and_unreserved_are_not() {
        assert_eq!(encode("AZaz09-_.~"), "AZaz09-_.~");
        assert_eq!(encode("a b+c&d=e/é%"), "a%20b%2Bc%26d%3De%2F%C3%A9%25");
        let mut path = String::new();
        encode_into(&mut path, "/a b/c", true);
        assert_eq!(path, "/a%20b/c");
    }

    proptest! {
        #[test]
        fn encoding_is_reversible_and_plain(text in any::<String>()) {
            let encoded = encode(&text);
            prop_assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~%".contains(&b)));
            prop_assert_eq!(decode(&encoded), Some(text));
        }
    }
}
