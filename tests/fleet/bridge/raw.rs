//! Records as other clients may write them: rdkafka writes no header whose name is not text.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// A record as bytes, in partition 0.
#[derive(Clone, Copy, Default)]
pub(crate) struct Raw<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) headers: &'a [(&'a [u8], &'a [u8])],
}

/// Puts a record into a topic by a Produce request (version 3) of our own, and waits until Kafka has it.
pub(crate) fn put(brokers: &str, topic: &str, record: Raw<'_>) {
    let mut request = Vec::new();
    // Produce, version 3, correlation 7, no client id; no transaction, all replicas, 30 s, one topic.
    request.extend([0, 0, 0, 3, 0, 0, 0, 7, 0xff, 0xff]);
    request.extend([0xff, 0xff, 0xff, 0xff]);
    request.extend(30_000_i32.to_be_bytes());
    request.extend(1_i32.to_be_bytes());
    request.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
    request.extend(topic.as_bytes());
    // One partition, the first.
    request.extend(1_i32.to_be_bytes());
    request.extend(0_i32.to_be_bytes());
    request.extend(sized(&batch(record)));
    let mut socket = TcpStream::connect(brokers).unwrap();
    socket.write_all(&sized(&request)).unwrap();
    let mut size = [0; 4];
    socket.read_exact(&mut size).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(size) as usize];
    socket.read_exact(&mut answer).unwrap();
    // Behind correlation, count of topics, name, count of partitions and number of the partition.
    let at = 4 + 4 + 2 + topic.len() + 4 + 4;
    let code = i16::from_be_bytes([answer[at], answer[at + 1]]);
    assert_eq!(code, 0, "Kafka refuses the record");
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let size = u32::try_from(bytes.len()).unwrap();
    [&size.to_be_bytes(), bytes].concat()
}

/// A batch (format 2) of one record.
fn batch(record: Raw<'_>) -> Vec<u8> {
    let mut content = vec![0, 0, 0];
    for bytes in [record.key, record.value] {
        append(&mut content, bytes);
    }
    number(&mut content, record.headers.len());
    for (name, value) in record.headers {
        append(&mut content, name);
        append(&mut content, value);
    }
    let mut checked = Vec::new();
    // No attributes, one offset, first and last time, no producer, one record.
    checked.extend([0; 2 + 4 + 8 + 8]);
    checked.extend([0xff; 8 + 2 + 4]);
    checked.extend(1_i32.to_be_bytes());
    append(&mut checked, &content);
    let mut behind = vec![0xff, 0xff, 0xff, 0xff, 2];
    behind.extend(crc32c(&checked).to_be_bytes());
    behind.extend(checked);
    [&[0; 8][..], &sized(&behind)].concat()
}

fn append(to: &mut Vec<u8>, bytes: &[u8]) {
    number(to, bytes.len());
    to.extend(bytes);
}

/// A length as Kafka writes it: zigzag, seven bits a byte.
fn number(to: &mut Vec<u8>, value: usize) {
    let mut left = value << 1;
    while left > 0x7f {
        to.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    to.push(left as u8);
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))
        })
    })
}
