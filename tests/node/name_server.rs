//! A name server that knows one address, to show that the program in the image can ask one.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Of a message: its id, flags and four counts.
const HEADER: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];

/// Answers every question for an IPv4 address with 127.0.0.1; ends when dropped.
pub struct NameServer {
    pub address: Ipv4Addr,
    questions: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl NameServer {
    /// On port 53 of a loopback address that nobody else uses: resolvers know no other port.
    pub async fn start() -> Result<Self> {
        let number = rand_byte();
        let address = Ipv4Addr::new(127, 66, number, 1);
        let socket = UdpSocket::bind((address, 53)).await?;
        let questions = Arc::new(AtomicUsize::new(0));
        let counter = questions.clone();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                if let Some(answer) = answer(&buffer[..length]) {
                    counter.fetch_add(1, Ordering::Relaxed);
                    send(&socket, &answer, from).await;
                }
            }
        });
        Ok(Self {
            address,
            questions,
            task,
        })
    }

    /// How often it was asked.
    pub fn questions(&self) -> usize {
        self.questions.load(Ordering::Relaxed)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Two runs at once take different addresses.
fn rand_byte() -> u8 {
    u8::try_from(std::process::id() % 250).unwrap_or_default()
}

async fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    // A resolver that has gone away asks no more.
    let _ = socket.send_to(answer, to).await;
}

/// The answer to a message with one question (RFC 1035, section 4).
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let name = question.get(HEADER..)?.iter().position(|&byte| byte == 0)?;
    let end = HEADER + name + 1 + 4;
    let kind = question.get(end - 4..end - 2)?;
    let known = kind == TYPE_A;
    let mut answer = question[..2].to_vec();
    // An answer, recursion available, no error; one question, one or no answer.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(known), 0, 0, 0, 0]);
    answer.extend(&question[HEADER..end]);
    if known {
        // The name of the question, an IPv4 address, class IN, for a minute, four bytes.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(Ipv4Addr::LOCALHOST.octets());
    }
    Some(answer)
}
