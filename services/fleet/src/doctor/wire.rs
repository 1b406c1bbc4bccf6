//! MQTT 5 by hand: a client that does what a well-behaved one never would.
//!
//! The fleet's session hides exactly what has to be seen here: what CONNACK says, how much a broker
//! sends to one that does not acknowledge, what it does when two connections share a client id.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use fleet_shared::session::{Options, dial};
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

/// Longest wait for a packet that has to come.
const ANSWER: Duration = Duration::from_secs(5);

/// The first reason code that says no (MQTT 5, section 2.4).
pub(super) const REFUSED: u8 = 0x80;

/// Largest packet that is taken; a probe's own are far below.
const PACKET_MAX: usize = 8 * 1024 * 1024;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// How a probe connects.
#[derive(Clone, Debug)]
pub(super) struct Connect {
    pub(super) client_id: String,
    pub(super) clean_start: bool,
    /// Seconds that the broker keeps the session.
    pub(super) expiry: u32,
    pub(super) receive_maximum: u16,
    pub(super) will: Option<Will>,
}

impl Connect {
    /// A client that is forgotten when it leaves.
    pub(super) fn new(client_id: impl Into<String>) -> Self {
        Self {
            client_id: client_id.into(),
            clean_start: true,
            expiry: 0,
            receive_maximum: u16::MAX,
            will: None,
        }
    }
}

/// A will of QoS 1, not retained.
#[derive(Clone, Debug)]
pub(super) struct Will {
    pub(super) topic: String,
    pub(super) delay: u32,
}

/// What CONNACK says.
#[derive(Clone, Debug, Default)]
pub(super) struct Connack {
    pub(super) session_present: bool,
    pub(super) code: u8,
    pub(super) receive_maximum: Option<u16>,
    pub(super) qos_max: Option<u8>,
    pub(super) retain_available: bool,
    pub(super) packet_max: Option<u32>,
    pub(super) shared_available: bool,
    pub(super) expiry: Option<u32>,
}

/// A message as it came.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) dup: bool,
    pub(super) id: u16,
    /// Seconds that are left of its life.
    pub(super) expiry: Option<u32>,
}

/// An open connection.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    pub(super) connack: Connack,
    id: u16,
    inbox: VecDeque<Message>,
    /// The reason of the broker's DISCONNECT.
    pub(super) ended: Option<u8>,
}

struct Packet {
    first: u8,
    body: Vec<u8>,
}

impl Wire {
    /// Connects, whatever CONNACK says.
    pub(super) async fn open(options: &Options, connect: &Connect) -> io::Result<Self> {
        let limit = Instant::now() + options.connect_timeout.min(ANSWER * 2);
        let stream = timeout_at(limit, dial(options))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time"))?
            .map_err(|error| io::Error::other(format!("{:#}", anyhow::Error::new(error))))?;
        let mut wire = Self {
            stream: Box::new(stream),
            connack: Connack::default(),
            id: 0,
            inbox: VecDeque::new(),
            ended: None,
        };
        wire.write(0x10, &connect_body(options, connect)).await?;
        let packet = wire.read(limit).await?;
        if packet.first >> 4 != 2 {
            return Err(invalid("the first packet is no CONNACK"));
        }
        wire.connack = connack(&packet.body).ok_or_else(|| invalid("CONNACK is cut short"))?;
        Ok(wire)
    }

    async fn write(&mut self, first: u8, body: &[u8]) -> io::Result<()> {
        let mut packet = vec![first];
        varint(&mut packet, body.len());
        packet.extend_from_slice(body);
        self.stream.write_all(&packet).await?;
        self.stream.flush().await
    }

    async fn read(&mut self, until: Instant) -> io::Result<Packet> {
        let reading = async {
            let first = self.stream.read_u8().await?;
            let (mut length, mut shift) = (0_usize, 0);
            loop {
                let byte = self.stream.read_u8().await?;
                length |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 || shift > 21 {
                    break;
                }
            }
            if length > PACKET_MAX {
                return Err(invalid("a packet of more than 8 MiB"));
            }
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await?;
            Ok(Packet { first, body })
        };
        // A packet that is cut by the limit ends the use of this connection, which is all that the
        // probes do after a silence, or the silence is between packets.
        timeout_at(until, reading)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the broker did not answer"))?
    }

    /// Takes one packet: a message goes to the inbox, what is neither that nor of `wanted` kind is
    /// answered or left.
    async fn take(&mut self, wanted: u8, until: Instant) -> io::Result<Option<Packet>> {
        let packet = self.read(until).await?;
        match packet.first >> 4 {
            3 => {
                let message = message(&packet).ok_or_else(|| invalid("PUBLISH is cut short"))?;
                self.inbox.push_back(message);
            }
            6 => {
                let id = [byte(&packet.body, 0), byte(&packet.body, 1)];
                self.write(0x70, &id).await?;
            }
            14 => self.ended = Some(byte(&packet.body, 0)),
            kind if kind == wanted => return Ok(Some(packet)),
            _ => {}
        }
        Ok(None)
    }

    async fn answer(&mut self, wanted: u8, id: u16) -> io::Result<Packet> {
        let until = Instant::now() + ANSWER;
        loop {
            if let Some(packet) = self.take(wanted, until).await?
                && packet.body.starts_with(&id.to_be_bytes())
            {
                return Ok(packet);
            }
        }
    }

    fn next_id(&mut self) -> u16 {
        self.id = self.id.checked_add(1).unwrap_or(1);
        self.id
    }

    /// Subscribes. A refusal is an error: what a check would see after it would tell nothing.
    pub(super) async fn subscribe(&mut self, filter: &str, qos: u8) -> io::Result<()> {
        match self.try_subscribe(filter, qos).await? {
            code if code >= REFUSED => Err(io::Error::other(format!(
                "the broker refused `{filter}` with 0x{code:02x}"
            ))),
            _ => Ok(()),
        }
    }

    /// Subscribes and gives the reason code.
    pub(super) async fn try_subscribe(&mut self, filter: &str, qos: u8) -> io::Result<u8> {
        let id = self.next_id();
        let mut body = id.to_be_bytes().to_vec();
        body.push(0);
        string(&mut body, filter.as_bytes());
        body.push(qos);
        self.write(0x82, &body).await?;
        let packet = self.answer(9, id).await?;
        Ok(packet.body.last().copied().unwrap_or(0x80))
    }

    /// Publishes at QoS 1 or 2 and gives the reason code, once the broker has all of it.
    pub(super) async fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: u8,
        retain: bool,
    ) -> io::Result<u8> {
        let id = self.send(topic, payload, qos, retain, None).await?;
        let packet = self.answer(if qos == 2 { 5 } else { 4 }, id).await?;
        let code = byte(&packet.body, 2);
        if qos == 2 && code < 0x80 {
            self.write(0x62, &id.to_be_bytes()).await?;
            self.answer(7, id).await?;
        }
        Ok(code)
    }

    /// Publishes many at QoS 1 with few under way, and gives how many the broker refused.
    pub(super) async fn publish_all(&mut self, topic: &str, count: u32) -> io::Result<u32> {
        const UNDER_WAY: u32 = 100;
        let window = UNDER_WAY.min(u32::from(self.connack.receive_maximum.unwrap_or(u16::MAX)));
        let (mut sent, mut answered, mut refused) = (0, 0, 0);
        while answered < count {
            while sent < count && sent - answered < window {
                self.send(topic, sent.to_string().as_bytes(), 1, false, None)
                    .await?;
                sent += 1;
            }
            let until = Instant::now() + ANSWER;
            if let Some(packet) = self.take(4, until).await? {
                answered += 1;
                refused += u32::from(byte(&packet.body, 2) >= 0x80);
            }
        }
        Ok(refused)
    }

    /// Publishes and does not wait; gives the packet identifier.
    pub(super) async fn send(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: u8,
        retain: bool,
        expiry: Option<u32>,
    ) -> io::Result<u16> {
        let id = self.next_id();
        let mut body = Vec::with_capacity(topic.len() + payload.len() + 16);
        string(&mut body, topic.as_bytes());
        if qos > 0 {
            body.extend_from_slice(&id.to_be_bytes());
        }
        match expiry {
            None => body.push(0),
            Some(seconds) => {
                body.extend_from_slice(&[5, 0x02]);
                body.extend_from_slice(&seconds.to_be_bytes());
            }
        }
        body.extend_from_slice(payload);
        self.write(0x30 | (qos << 1) | u8::from(retain), &body)
            .await?;
        Ok(id)
    }

    /// Sends QoS 2 publishes without the second step and gives how many the broker takes.
    pub(super) async fn flood_exactly_once(&mut self, topic: &str, count: u32) -> io::Result<u32> {
        let mut taken = Vec::new();
        for n in 0..count {
            self.send(topic, n.to_string().as_bytes(), 2, false, None)
                .await?;
        }
        let until = Instant::now() + ANSWER;
        for _ in 0..count {
            let packet = loop {
                match self.take(5, until).await {
                    Ok(Some(packet)) => break Some(packet),
                    Ok(None) if self.ended.is_none() => {}
                    Ok(None) | Err(_) => break None,
                }
            };
            let Some(packet) = packet else { break };
            if byte(&packet.body, 2) < 0x80 {
                taken.push([byte(&packet.body, 0), byte(&packet.body, 1)]);
            }
        }
        for id in &taken {
            self.write(0x62, id).await?;
        }
        Ok(u32::try_from(taken.len()).unwrap_or(u32::MAX))
    }

    /// The next message; none when `limit` passes without one, or the connection ends.
    pub(super) async fn message(&mut self, limit: Duration) -> Option<Message> {
        let until = Instant::now() + limit;
        loop {
            if let Some(message) = self.inbox.pop_front() {
                return Some(message);
            }
            self.take(0, until).await.ok()?;
        }
    }

    /// Up to `max` messages, until `quiet` passes without one; acknowledged or not.
    pub(super) async fn messages(
        &mut self,
        max: usize,
        quiet: Duration,
        acknowledge: bool,
    ) -> Vec<Message> {
        let mut messages = Vec::new();
        while messages.len() < max {
            let Some(message) = self.message(quiet).await else {
                break;
            };
            if acknowledge && self.acknowledge(&message).await.is_err() {
                break;
            }
            messages.push(message);
        }
        messages
    }

    /// Acknowledges a message, its first step at QoS 2; the second is answered on the way.
    pub(super) async fn acknowledge(&mut self, message: &Message) -> io::Result<()> {
        match message.qos {
            0 => Ok(()),
            1 => self.write(0x40, &message.id.to_be_bytes()).await,
            _ => self.write(0x50, &message.id.to_be_bytes()).await,
        }
    }

    /// Whether the connection ends within `limit`.
    pub(super) async fn ends(&mut self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            match self.take(0, until).await {
                Ok(_) if self.ended.is_some() => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != io::ErrorKind::TimedOut,
            }
        }
    }

    /// DISCONNECT; the broker forgets the session when `forget` is set, else keeps it as CONNECT said.
    pub(super) async fn leave(mut self, forget: bool) {
        let body: &[u8] = if forget {
            &[0, 5, 0x11, 0, 0, 0, 0]
        } else {
            &[0, 0]
        };
        // It leaves either way.
        self.write(0xe0, body).await.ok();
        self.stream.shutdown().await.ok();
    }
}

fn connect_body(options: &Options, connect: &Connect) -> Vec<u8> {
    let mut body = Vec::new();
    string(&mut body, b"MQTT");
    let mut flags = u8::from(connect.clean_start) << 1;
    if connect.will.is_some() {
        flags |= 0x04 | (1 << 3);
    }
    if options.username.is_some() {
        flags |= 0x80;
    }
    if options.password.is_some() {
        flags |= 0x40;
    }
    body.extend_from_slice(&[5, flags, 0, 60]);
    body.extend_from_slice(&[8, 0x11]);
    body.extend_from_slice(&connect.expiry.to_be_bytes());
    body.push(0x21);
    body.extend_from_slice(&connect.receive_maximum.to_be_bytes());
    string(&mut body, connect.client_id.as_bytes());
    if let Some(will) = &connect.will {
        body.extend_from_slice(&[5, 0x18]);
        body.extend_from_slice(&will.delay.to_be_bytes());
        string(&mut body, will.topic.as_bytes());
        string(&mut body, b"will");
    }
    if let Some(username) = &options.username {
        string(&mut body, username.as_bytes());
    }
    if let Some(password) = &options.password {
        string(&mut body, password.expose_secret().as_bytes());
    }
    body
}

fn connack(body: &[u8]) -> Option<Connack> {
    let mut connack = Connack {
        session_present: body.first()? & 1 == 1,
        code: *body.get(1)?,
        retain_available: true,
        shared_available: true,
        ..Connack::default()
    };
    let (mut properties, _) = properties(body.get(2..)?)?;
    while let Some((&name, rest)) = properties.split_first() {
        let two = || Some(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?));
        let four = || Some(u32::from_be_bytes(rest.get(..4)?.try_into().ok()?));
        match name {
            0x11 => connack.expiry = four(),
            0x21 => connack.receive_maximum = two(),
            0x24 => connack.qos_max = rest.first().copied(),
            0x25 => connack.retain_available = rest.first() == Some(&1),
            0x27 => connack.packet_max = four(),
            0x2a => connack.shared_available = rest.first() == Some(&1),
            _ => {}
        }
        properties = rest.get(width(name, rest)?..)?;
    }
    Some(connack)
}

fn message(packet: &Packet) -> Option<Message> {
    let body = &packet.body;
    let length = usize::from(u16::from_be_bytes(body.get(..2)?.try_into().ok()?));
    let topic = String::from_utf8_lossy(body.get(2..2 + length)?).into_owned();
    let mut at = 2 + length;
    let qos = (packet.first >> 1) & 3;
    let mut id = 0;
    if qos > 0 {
        id = u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?);
        at += 2;
    }
    let (mut properties, payload) = properties(body.get(at..)?)?;
    let mut expiry = None;
    while let Some((&name, rest)) = properties.split_first() {
        if name == 0x02 {
            expiry = Some(u32::from_be_bytes(rest.get(..4)?.try_into().ok()?));
        }
        properties = rest.get(width(name, rest)?..)?;
    }
    Some(Message {
        topic,
        payload: payload.to_vec(),
        qos,
        retain: packet.first & 1 == 1,
        dup: packet.first & 8 == 8,
        id,
        expiry,
    })
}

/// The properties at the start of `bytes`, and what follows them.
fn properties(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut length, mut at) = (0_usize, 0);
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7f) << (7 * at);
        at += 1;
        if byte & 0x80 == 0 || at == 4 {
            break;
        }
    }
    let rest = bytes.get(at..)?;
    (rest.len() >= length).then(|| rest.split_at(length))
}

/// Bytes that the value of a property takes (MQTT 5, section 2.2.2.2).
fn width(name: u8, rest: &[u8]) -> Option<usize> {
    let text = |at: usize| {
        let length = rest.get(at..at + 2)?.try_into().ok()?;
        Some(at + 2 + usize::from(u16::from_be_bytes(length)))
    };
    Some(match name {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => 1,
        0x13 | 0x21 | 0x22 | 0x23 => 2,
        0x02 | 0x11 | 0x18 | 0x27 => 4,
        0x0b => rest.iter().position(|byte| byte & 0x80 == 0)? + 1,
        0x26 => text(text(0)?)?,
        _ => text(0)?,
    })
}

fn string(into: &mut Vec<u8>, text: &[u8]) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    into.extend_from_slice(&length.to_be_bytes());
    into.extend_from_slice(&text[..usize::from(length)]);
}

fn varint(into: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = (length % 128) as u8;
        length /= 128;
        into.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
}

fn byte(body: &[u8], at: usize) -> u8 {
    body.get(at).copied().unwrap_or_default()
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
