//! The emulator alone, asked by real clients: reqwest for the protocol, crane for images. The names E… and A… are the vectors of the
//! protocol notes; every refusal stands beside the same request accepted.

mod bed;
mod clouds;
mod entra;
mod exchange;
mod faults;
mod program;
mod proxy;
mod pull;
mod token;
