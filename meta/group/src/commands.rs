//! Many commands in one log entry: `count × { length u32 le, bytes }`. They share one index and one sync.

use bytes::{Buf, BufMut, Bytes};

use crate::limits;

/// Entry data from as many of the waiting commands as share one entry. Takes at least one.
pub(crate) fn pack(waiting: &[Bytes]) -> (Vec<u8>, usize) {
    assert!(!waiting.is_empty(), "an entry carries a command");
    let mut data = Vec::with_capacity(4 + waiting[0].len());
    let mut taken = 0;
    for command in waiting {
        let framed = 4 + command.len();
        if taken > 0 && data.len() + framed > limits::ENTRY_BYTES_MAX {
            break;
        }
        data.put_u32_le(u32::try_from(command.len()).expect("bounded by COMMAND_BYTES_MAX"));
        data.extend_from_slice(command);
        taken += 1;
    }
    (data, taken)
}

/// The commands of an entry. What does not parse yields nothing more, alike on every replica.
pub(crate) fn unpack(data: Vec<u8>) -> impl Iterator<Item = Bytes> {
    let mut left = Bytes::from(data);
    std::iter::from_fn(move || {
        if left.len() < 4 {
            return None;
        }
        let length = left.get_u32_le() as usize;
        if length > left.len() {
            left.clear();
            return None;
        }
        Some(left.split_to(length))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_back_in_order_and_entries_are_bounded() {
        let commands: Vec<Bytes> =
            (0..700_u32).map(|n| Bytes::from(vec![n as u8; (n * 7 % 1500) as usize])).collect();
        let mut back = Vec::new();
        let mut from = 0;
        while from < commands.len() {
            let (data, taken) = pack(&commands[from..]);
            assert!(taken > 0);
            assert!(data.len() <= limits::ENTRY_BYTES_MAX);
            back.extend(unpack(data));
            from += taken;
        }
        assert_eq!(back, commands);
    }

    #[test]
    fn a_large_command_has_an_entry_of_its_own() {
        let large = Bytes::from(vec![1; limits::ENTRY_BYTES_MAX + 1]);
        let (data, taken) = pack(&[large.clone(), Bytes::new()]);
        assert_eq!(taken, 1);
        assert_eq!(unpack(data).collect::<Vec<_>>(), [large]);
    }

    #[test]
    fn bytes_that_are_no_commands_end_the_entry() {
        assert_eq!(unpack(vec![]).count(), 0);
        assert_eq!(unpack(vec![1, 0]).count(), 0);
        assert_eq!(unpack(vec![1, 0, 0, 0, 9, 255, 255, 255, 255, 1]).count(), 1);
    }

    fn entries() -> Vec<Vec<u8>> {
        let commands = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"the third")];
        vec![pack(&commands).0, pack(&commands[..1]).0]
    }

    #[test]
    fn damaged_entries() {
        ff2_fuzz::target!(entries(), |bytes| {
            let commands: Vec<Bytes> =
                ff2_fuzz::bounded(bytes, || unpack(bytes.to_vec()).collect());
            if let Some(all) = (!commands.is_empty()).then(|| pack(&commands).0) {
                assert!(bytes.starts_with(&all), "only what is there");
            }
        });
    }
}
