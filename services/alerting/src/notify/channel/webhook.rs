//! Webhooks, signed as Standard Webhooks (<https://www.standardwebhooks.com>, version 1.0.0).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// Before a secret, so that people know it when they see one.
const PREFIX: &str = "whsec_";

/// The value of `webhook-signature`: `v1,` and a signature, for each of the secrets.
///
/// What is signed is `id.timestamp.body`, with HMAC-SHA256 and the secret as base64 after `whsec_`.
///
/// # Errors
/// If a secret is none; the sentence does not hold it.
pub fn signature(
    secrets: &str,
    id: &str,
    timestamp: i64,
    body: &str,
) -> Result<String, &'static str> {
    let mut signatures = Vec::new();
    for secret in secrets.split_whitespace() {
        let encoded = secret
            .strip_prefix(PREFIX)
            .ok_or("the secret of the webhook does not begin with whsec_")?;
        let secret = STANDARD
            .decode(encoded)
            .map_err(|_| "the secret of the webhook is no base64 after whsec_")?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let tag = hmac::sign(&key, format!("{id}.{timestamp}.{body}").as_bytes());
        signatures.push(format!("v1,{}", STANDARD.encode(tag)));
    }
    if signatures.is_empty() {
        return Err("the file of the webhook's secret holds none");
    }
    Ok(signatures.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_specification() {
        // The example of the specification's own libraries.
        let signed = signature(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            "{\"test\": 2432232314}",
        );
        assert_eq!(
            signed.as_deref(),
            Ok("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        );
    }

    #[test]
    fn each_secret_signs_while_they_are_exchanged() {
        let signed = signature("whsec_AAAA\nwhsec_BBBB\n", "id", 1, "{}").unwrap();
        assert_eq!(signed.split(' ').count(), 2);
        for bad in ["", "secret", "whsec_*"] {
            assert!(signature(bad, "id", 1, "{}").is_err(), "{bad}");
        }
    }
}
