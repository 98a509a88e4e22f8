//! BIT, ENUM and SET: what is more than a number.

use super::Outcome;

/// BIT(1) as a boolean.
pub(super) fn write_bit(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    out.extend_from_slice(match raw {
        [0] => b"false",
        [1] => b"true",
        _ => return Err("is not one bit"),
    });
    Ok(())
}

/// BIT(n) as a string of n bits, the highest first. The bytes are big-endian.
pub(super) fn write_bits(raw: &[u8], count: usize, out: &mut Vec<u8>) -> Outcome {
    if count > 64 || raw.len() != count.div_ceil(8) {
        return Err("has another number of bits");
    }
    let number = raw.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    out.push(b'"');
    for bit in (0..count).rev() {
        out.push(b'0' + u8::from(number >> bit & 1 == 1));
    }
    out.push(b'"');
    Ok(())
}

/// Labels of an ENUM or SET as JSON strings; `None` for one that cannot be read.
pub(super) type Labels = Vec<Option<Box<[u8]>>>;

const LABEL: &str = "a label cannot be read in its character set";

fn little(raw: &[u8]) -> u64 {
    raw.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// ENUM: the label's place from 1, in one or two bytes. Place 0 is the server's
/// mark of a value that was none of the labels; it shows as the empty string.
pub(super) fn write_enum(raw: &[u8], labels: &Labels, out: &mut Vec<u8>) -> Outcome {
    if !matches!(raw.len(), 1 | 2) {
        return Err("is not as long as the type");
    }
    let place = little(raw) as usize;
    let Some(index) = place.checked_sub(1) else {
        out.extend_from_slice(b"\"\"");
        return Ok(());
    };
    let label = labels.get(index).ok_or("names a label that is not known")?;
    out.extend_from_slice(label.as_ref().ok_or(LABEL)?);
    Ok(())
}

/// SET: one bit per label, the first label's the lowest, in 1 to 8 bytes.
pub(super) fn write_set(raw: &[u8], labels: &Labels, out: &mut Vec<u8>) -> Outcome {
    if !matches!(raw.len(), 1..=8) {
        return Err("is not as long as the type");
    }
    let mut bits = little(raw);
    out.push(b'[');
    let mut first = true;
    while bits != 0 {
        if !first {
            out.push(b',');
        }
        first = false;
        let label = labels.get(bits.trailing_zeros() as usize).ok_or("names a label that is not known")?;
        out.extend_from_slice(label.as_ref().ok_or(LABEL)?);
        bits &= bits - 1;
    }
    out.push(b']');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(write: impl Fn(&mut Vec<u8>) -> Outcome) -> String {
        let mut out = Vec::new();
        match write(&mut out) {
            Ok(()) => String::from_utf8(out).expect("UTF-8"),
            Err(reason) => reason.to_owned(),
        }
    }

    #[test]
    fn bits_are_shown_highest_first() {
        assert_eq!(shown(|out| write_bit(&[1], out)), "true");
        assert_eq!(shown(|out| write_bit(&[0], out)), "false");
        assert_eq!(shown(|out| write_bit(&[2], out)), "is not one bit");
        assert_eq!(shown(|out| write_bits(&[2], 2, out)), "\"10\"");
        assert_eq!(shown(|out| write_bits(&[64], 8, out)), "\"01000000\"");
        assert_eq!(shown(|out| write_bits(&[1, 0x80], 9, out)), "\"110000000\"");
        let expected = format!("\"{:064b}\"", 23_989_979);
        assert_eq!(shown(|out| write_bits(&23_989_979_u64.to_be_bytes(), 64, out)), expected);
        assert_eq!(shown(|out| write_bits(&[0], 9, out)), "has another number of bits");
        assert_eq!(shown(|out| write_bits(&[0; 20], 160, out)), "has another number of bits");
    }

    #[test]
    fn labels_are_found_by_place_and_by_bit() {
        let labels: Labels = vec![Some(b"\"a,b\"".as_slice().into()), Some(b"\"c\"".as_slice().into()), None];
        assert_eq!(shown(|out| write_enum(&[0], &labels, out)), "\"\"");
        assert_eq!(shown(|out| write_enum(&[1], &labels, out)), "\"a,b\"");
        assert_eq!(shown(|out| write_enum(&[2, 0], &labels, out)), "\"c\"");
        assert_eq!(shown(|out| write_enum(&[3], &labels, out)), LABEL);
        assert_eq!(shown(|out| write_enum(&[0, 1], &labels, out)), "names a label that is not known");
        assert_eq!(shown(|out| write_set(&[0], &labels, out)), "[]");
        assert_eq!(shown(|out| write_set(&[3, 0, 0], &labels, out)), "[\"a,b\",\"c\"]");
        assert_eq!(shown(|out| write_set(&[8], &labels, out)), "names a label that is not known");
        let many: Labels = (0..64).map(|n| Some(format!("{n}").into_bytes().into())).collect();
        assert_eq!(shown(|out| write_set(&(1 << 63_u64 | 1_u64).to_le_bytes(), &many, out)), "[0,63]");
        let enums: Labels = (0..300).map(|n| Some(format!("{n}").into_bytes().into())).collect();
        assert_eq!(shown(|out| write_enum(&300_u16.to_le_bytes(), &enums, out)), "299");
    }
}
