//! E-mail by SMTP.

use lettre::message::Mailbox;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{
    Certificate, CertificateStore, Tls, TlsParameters, TlsParametersBuilder,
};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use secrecy::ExposeSecret as _;

use super::{SEND_TIMEOUT, SendError, secret};
use crate::notify::notification::Notification;
use crate::notify::text::Rendered;
use crate::route::{EmailFile, SmtpTls};

pub(super) async fn send(
    file: &EmailFile,
    id: &str,
    notification: &Notification,
    rendered: &Rendered,
) -> Result<(), SendError> {
    let message = message(file, id, notification, rendered)?;
    let transport = transport(file)?;
    match transport.send(message).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_permanent() => Err(SendError::refused(chain(error))),
        Err(error) => Err(SendError::later(chain(error))),
    }
}

fn message(
    file: &EmailFile,
    id: &str,
    notification: &Notification,
    rendered: &Rendered,
) -> Result<Message, SendError> {
    let mailbox = |address: &str| {
        address
            .parse::<Mailbox>()
            .map_err(|error| SendError::refused(format!("`{address}` is no address: {error}")))
    };
    let from = mailbox(&file.from.value)?;
    // The same for every attempt: a mail program shows what came twice once.
    let message_id = format!("<{id}@{}>", from.email.domain());
    let mut builder = Message::builder()
        .from(from)
        .subject(&rendered.title)
        .message_id(Some(message_id))
        .raw_header(header("X-Fleet-Notification", id))
        .raw_header(header("X-Fleet-Status", &notification.status))
        .header(ContentType::TEXT_PLAIN);
    if notification.severity() == "critical" {
        builder = builder.raw_header(header("X-Priority", "1"));
    }
    for to in &file.to {
        builder = builder.to(mailbox(&to.value)?);
    }
    builder
        .body(rendered.text.clone())
        .map_err(|error| SendError::refused(format!("the e-mail cannot be written: {error}")))
}

fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

fn transport(file: &EmailFile) -> Result<AsyncSmtpTransport<Tokio1Executor>, SendError> {
    let (host, port) = file
        .smarthost
        .value
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)))
        .ok_or_else(|| SendError::refused("`smarthost` is not host:port"))?;
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(port)
        .timeout(Some(SEND_TIMEOUT))
        .tls(match file.tls {
            SmtpTls::None => Tls::None,
            SmtpTls::Starttls => Tls::Required(tls(file, host)?),
            SmtpTls::Implicit => Tls::Wrapper(tls(file, host)?),
        });
    if let Some(username) = &file.username {
        let password = match &file.password_file {
            Some(path) => secret(path, "password_file")?.expose_secret().to_owned(),
            None => String::new(),
        };
        builder = builder.credentials(Credentials::new(username.clone(), password));
    }
    Ok(builder.build())
}

fn tls(file: &EmailFile, host: &str) -> Result<TlsParameters, SendError> {
    let mut builder: TlsParametersBuilder = TlsParameters::builder(host.to_owned());
    if let Some(path) = &file.ca_file {
        // Tried again, as it may be on its way.
        let unusable =
            |error: String| SendError::later(format!("ca_file {}: {error}", path.display()));
        let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let authority = Certificate::from_pem(&pem).map_err(|error| unusable(error.to_string()))?;
        builder = builder
            .certificate_store(CertificateStore::None)
            .add_root_certificate(authority);
    }
    builder
        .build_rustls()
        .map_err(|error| SendError::refused(chain(error)))
}

fn chain(error: lettre::transport::smtp::Error) -> String {
    format!("{:#}", anyhow::Error::new(error))
}
