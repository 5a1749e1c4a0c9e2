//! A Secret in the API server's other encodings.

use serde_json::Value;

use super::bodies::{EMPTY_CONFIG, OWNER, TYPE};
use super::secrets::Target;

/// A field of a protobuf message that has a length: its number, its length, its bytes. All lengths are below 128,
/// except that of the whole.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        field.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
        length >>= 7;
    }
    field.push(u8::try_from(length).expect("seven bits"));
    field.extend(bytes);
    field
}

/// An entry of a map.
fn entry(key: &str, value: &str) -> Vec<u8> {
    [field(1, key.as_bytes()), field(2, value.as_bytes())].concat()
}

/// A Secret as protobuf, with the envelope of Kubernetes.
pub fn protobuf(target: &Target, kind: &str, more: &[u8]) -> Vec<u8> {
    let metadata = [
        field(1, target.name.as_bytes()),
        field(3, target.namespace.as_bytes()),
        field(12, &entry("acrcred.dev/owner", OWNER)),
    ];
    let secret = [
        field(1, &metadata.concat()),
        field(2, &entry(".dockerconfigjson", EMPTY_CONFIG)),
        field(3, TYPE.as_bytes()),
        more.to_vec(),
    ];
    let types = [field(1, b"v1"), field(2, kind.as_bytes())];
    let envelope = [field(1, &types.concat()), field(2, &secret.concat())];
    [b"k8s\0".to_vec(), envelope.concat()].concat()
}

/// The field `immutable: true` of a Secret as protobuf.
pub const IMMUTABLE: [u8; 2] = [5 << 3, 1];
/// The same field as a text, which it cannot be.
pub const IMMUTABLE_TEXT: [u8; 3] = [5 << 3 | 2, 1, b'x'];

/// A value as CBOR, with the tag by which the API server knows it.
pub fn cbor(value: &Value) -> Vec<u8> {
    let mut bytes = vec![0xd9, 0xd9, 0xf7];
    item(value, &mut bytes);
    bytes
}

fn item(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::Null => bytes.push(0xf6),
        Value::Bool(false) => bytes.push(0xf4),
        Value::Bool(true) => bytes.push(0xf5),
        Value::Number(number) => head(0, number.as_u64().unwrap_or_default(), bytes),
        Value::String(text) => {
            head(2, text.len() as u64, bytes);
            bytes.extend(text.as_bytes());
        }
        Value::Array(items) => {
            head(4, items.len() as u64, bytes);
            for each in items {
                item(each, bytes);
            }
        }
        Value::Object(fields) => {
            head(5, fields.len() as u64, bytes);
            for (key, value) in fields {
                item(&Value::String(key.clone()), bytes);
                item(value, bytes);
            }
        }
    }
}

/// The type of an item and its number or length.
fn head(kind: u8, number: u64, bytes: &mut Vec<u8>) {
    let kind = kind << 5;
    if let Ok(byte) = u8::try_from(number)
        && byte < 24
    {
        bytes.push(kind | byte);
    } else {
        bytes.push(kind | 0x19);
        let number = u16::try_from(number).expect("a short item");
        bytes.extend(number.to_be_bytes());
    }
}
