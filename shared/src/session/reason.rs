//! Reason codes by their names in MQTT 5, section 2.4.

/// Acknowledged, and there was nobody to pass it on to.
pub(super) const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
/// First code that means failure.
pub(super) const FAILURE: u8 = 0x80;
/// The receiver has too many publishes in flight; EMQX answers it in PUBREC.
pub(super) const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
/// An implementation or administrative limit has been exceeded.
pub(super) const QUOTA_EXCEEDED: u8 = 0x97;
/// PUBREL or PUBREC for an identifier that is not in use.
pub(super) const PACKET_IDENTIFIER_NOT_FOUND: u8 = 0x92;

/// The name of a reason code.
pub(super) const fn name(code: u8) -> &'static str {
    match code {
        0x00 => "success",
        0x01 => "granted QoS 1",
        0x02 => "granted QoS 2",
        0x04 => "disconnect with will message",
        0x10 => "no matching subscribers",
        0x11 => "no subscription existed",
        0x18 => "continue authentication",
        0x19 => "re-authenticate",
        0x80 => "unspecified error",
        0x81 => "malformed packet",
        0x82 => "protocol error",
        0x83 => "implementation specific error",
        0x84 => "unsupported protocol version",
        0x85 => "client identifier not valid",
        0x86 => "bad user name or password",
        0x87 => "not authorized",
        0x88 => "server unavailable",
        0x89 => "server busy",
        0x8a => "banned",
        0x8b => "server shutting down",
        0x8c => "bad authentication method",
        0x8d => "keep alive timeout",
        0x8e => "session taken over by another client with the same client id",
        0x8f => "topic filter invalid",
        0x90 => "topic name invalid",
        0x91 => "packet identifier in use",
        0x92 => "packet identifier not found",
        0x93 => "receive maximum exceeded",
        0x94 => "topic alias invalid",
        0x95 => "packet too large",
        0x96 => "message rate too high",
        0x97 => "quota exceeded",
        0x98 => "administrative action",
        0x99 => "payload format invalid",
        0x9a => "retain not supported",
        0x9b => "QoS not supported",
        0x9c => "use another server",
        0x9d => "server moved",
        0x9e => "shared subscriptions not supported",
        0x9f => "connection rate exceeded",
        0xa0 => "maximum connect time",
        0xa1 => "subscription identifiers not supported",
        0xa2 => "wildcard subscriptions not supported",
        _ => "unknown reason",
    }
}
