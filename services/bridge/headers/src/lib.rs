//! Headers of a Kafka record by name, whatever else the record has for names.
//!
//! Kafka takes any bytes for the name of a header. rdkafka gives headers out one after the other with
//! their names as `str`, and panics at a name that is not UTF-8, so whoever may write to a topic could
//! end its consumer. Here librdkafka looks for the name, and the other names are never looked at.
//! That takes three lines of `unsafe`, which the rest of the workspace forbids: this crate has them and
//! nothing else.

use std::ffi::{CStr, c_void};
use std::ptr;

use rdkafka::bindings::{
    rd_kafka_header_get, rd_kafka_headers_t, rd_kafka_message_headers, rd_kafka_resp_err_t,
};
use rdkafka::message::BorrowedMessage;

const FOUND: rd_kafka_resp_err_t = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// The value of the first header of that name; nothing of a header without a value.
#[must_use]
pub fn first<'a>(record: &'a BorrowedMessage<'_>, name: &CStr) -> Option<&'a [u8]> {
    let mut headers = ptr::null_mut();
    #[expect(unsafe_code, reason = "rdkafka's own way panics")]
    // SAFETY: the record is borrowed, so the message is there; it is what rdkafka itself does with it
    // in `Message::headers`, by the same kind of reference.
    let outcome = unsafe { rd_kafka_message_headers(record.ptr(), &raw mut headers) };
    if outcome != FOUND {
        return None;
    }
    #[expect(unsafe_code, reason = "rdkafka's own way panics")]
    // SAFETY: the headers are the message's, which leaves them as they are for as long as it lives,
    // and it is borrowed for as long as the value is.
    unsafe {
        find(headers, name)
    }
}

/// # Safety
/// The headers are there, and unchanged for all of `'a`.
#[expect(unsafe_code, reason = "rdkafka's own way panics")]
unsafe fn find<'a>(headers: *const rd_kafka_headers_t, name: &CStr) -> Option<&'a [u8]> {
    let mut value: *const c_void = ptr::null();
    let mut size = 0;
    // SAFETY: the caller vouches for the headers; librdkafka reads the name up to its end.
    let outcome =
        unsafe { rd_kafka_header_get(headers, 0, name.as_ptr(), &raw mut value, &raw mut size) };
    if outcome != FOUND || value.is_null() {
        return None;
    }
    // SAFETY: librdkafka has set both to a value of that many bytes, which is the header's own.
    Some(unsafe { std::slice::from_raw_parts(value.cast(), size) })
}

#[cfg(test)]
mod tests {
    use rdkafka::bindings::{rd_kafka_header_add, rd_kafka_headers_destroy, rd_kafka_headers_new};

    use super::*;

    /// What `find` gives of headers with these names and values.
    #[expect(
        unsafe_code,
        reason = "rdkafka makes no headers whose names are not text"
    )]
    fn found(headers: &[(&[u8], Option<&[u8]>)], name: &CStr) -> Option<Vec<u8>> {
        // SAFETY: librdkafka copies what it is given, and the headers end after their last use.
        unsafe {
            let made = rd_kafka_headers_new(headers.len());
            for (name, value) in headers {
                let (start, size) = value.map_or((ptr::null(), 0), |v| (v.as_ptr(), v.len()));
                let outcome = rd_kafka_header_add(
                    made,
                    name.as_ptr().cast(),
                    name.len().cast_signed(),
                    start.cast(),
                    size.cast_signed(),
                );
                assert_eq!(outcome, FOUND);
            }
            let value = find(made, name).map(<[u8]>::to_vec);
            rd_kafka_headers_destroy(made);
            value
        }
    }

    #[test]
    fn header_is_found_among_names_that_are_no_text() {
        let headers: &[(&[u8], Option<&[u8]>)] = &[
            (b"\xff\xfe", Some(b"x")),
            (b"", Some(b"no name")),
            (b"comman", Some(b"short")),
            (b"command\0", Some(b"long")),
            (b"command", Some(b"\xc3\x28")),
            (b"command", Some(b"second")),
            (b"empty", Some(b"")),
            (b"none", None),
        ];
        assert_eq!(
            found(headers, c"command").as_deref(),
            Some(&b"\xc3\x28"[..])
        );
        assert_eq!(found(headers, c"empty").as_deref(), Some(&b""[..]));
        assert_eq!(found(headers, c"none"), None);
        assert_eq!(found(headers, c"missing"), None);
        assert_eq!(found(&[], c"command"), None);
    }
}
