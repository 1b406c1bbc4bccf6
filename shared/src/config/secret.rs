//! Secrets from files, as orchestrators mount them.

use std::path::Path;

use secrecy::SecretString;

use super::ConfigError;

/// Longest secret file that is read; a longer one is surely not a password.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// A secret given by value or by file, or not at all.
///
/// One line end at the end of the file is not part of the secret: editors add it.
///
/// # Errors
/// When both are given, and when the file cannot be read, is empty, too long or not UTF-8; the
/// error names `file_setting` and the file, never the content.
pub fn secret(
    value: Option<&SecretString>,
    value_setting: &str,
    file: Option<&Path>,
    file_setting: &str,
) -> Result<Option<SecretString>, ConfigError> {
    match (value, file) {
        (Some(_), Some(_)) => Err(ConfigError::setting(
            format!("{value_setting} and {file_setting}"),
            "both are set; keep one of them",
        )),
        (Some(value), None) => Ok(Some(value.clone())),
        (None, Some(path)) => read(path, file_setting).map(Some),
        (None, None) => Ok(None),
    }
}

fn read(path: &Path, setting: &str) -> Result<SecretString, ConfigError> {
    use std::io::Read as _;

    let unreadable = |source| ConfigError::Unreadable {
        setting: setting.to_owned(),
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(unreadable)?
        .take(SECRET_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let refused = |remedy: &str| ConfigError::value(setting, path.display(), remedy);
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(refused(
            "the file is longer than 64 KiB; name the file that holds only the secret",
        ));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| refused("the file is not UTF-8 text; write the secret as text"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(refused("the file is empty; write the secret into it"));
    }
    Ok(SecretString::from(text))
}
