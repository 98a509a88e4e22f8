//! Values as Debezium's connector for MySQL encodes them.

use std::sync::Arc;

use figvine_change::ValueCodec;
use figvine_change::debezium::moment::{self, DAY, days};
use figvine_change::debezium::{BigintUnsigned, Encoding, Time, binary, number};
use figvine_change::json::write_string;

use super::time::{Clock, Date};
use super::{Charsets, Outcome, bit_count, bits, charset_of, decimal, decimal_shape, json, kind, labels, make};
use super::{string_length, text, time, whole};
use crate::decode::table_map::ColumnMap;

const WIDTH: &str = "is not as long as the type";

/// MySQL's `Field::geometry_type` of a point.
const POINT: u32 = 1;

/// The codec of a column.
pub(super) fn codec(
    name: Box<str>,
    column: &ColumnMap,
    charsets: &Charsets,
    encoding: &Arc<Encoding>,
) -> Arc<dyn ValueCodec> {
    let [digits, _] = column.metadata.to_le_bytes();
    let Encoding { decimal: decimals, time: times, binary: binaries, bigint_unsigned, .. } = **encoding;
    // What has no place in a calendar is null, or, where that cannot be, the first moment of 1970.
    let nullable = column.nullable;
    match column.type_code {
        kind::LONGLONG if column.unsigned => match bigint_unsigned {
            BigintUnsigned::Long => make(name, super::number::write_signed::<8>),
            BigintUnsigned::Precise => make(name, |raw, out| {
                number::write_unsigned(u64::from_le_bytes(fixed(raw)?), out);
                Ok(())
            }),
        },
        kind::TINY | kind::SHORT | kind::INT24 | kind::LONG | kind::LONGLONG => make(name, whole(column)),
        kind::YEAR => make(name, super::number::write_year),
        kind::FLOAT => make(name, |raw, out| {
            number::write_float(f32::from_le_bytes(fixed(raw)?), out);
            Ok(())
        }),
        kind::DOUBLE => make(name, |raw, out| {
            number::write_double(f64::from_le_bytes(fixed(raw)?), out);
            Ok(())
        }),
        kind::NEWDECIMAL => {
            let shape = decimal_shape(column);
            make(name, move |raw, out| {
                let mut digits = Vec::with_capacity(shape.precision + 3);
                decimal::push_decimal(raw, shape, &mut digits)?;
                number::write_decimal(&digits, Some(shape.scale), decimals, out)
            })
        }
        kind::DATE | kind::NEWDATE => make(name, move |raw, out| {
            write_date(time::read_date(raw)?, nullable, times, out);
            Ok(())
        }),
        kind::TIME | kind::TIME2 => {
            let is_old = column.type_code == kind::TIME;
            make(name, move |raw, out| {
                let (negative, clock) = if is_old { time::read_time_old(raw) } else { time::read_time(raw, digits) }?;
                write_time(negative, clock, if is_old { 0 } else { digits }, times, out);
                Ok(())
            })
        }
        kind::DATETIME | kind::DATETIME2 => {
            let is_old = column.type_code == kind::DATETIME;
            make(name, move |raw, out| {
                let read = if is_old { time::read_datetime_old(raw) } else { time::read_datetime(raw, digits) };
                let micros = micros(read?);
                match micros.or((!nullable).then_some(0)) {
                    Some(micros) => moment::write_timestamp(micros, if is_old { 0 } else { digits.into() }, times, out),
                    None => out.extend_from_slice(b"null"),
                }
                Ok(())
            })
        }
        kind::TIMESTAMP | kind::TIMESTAMP2 => {
            let is_old = column.type_code == kind::TIMESTAMP;
            make(name, move |raw, out| {
                let read = if is_old { time::read_timestamp_old(raw) } else { time::read_timestamp(raw, digits) };
                match micros(read?) {
                    Some(micros) => {
                        moment::write_zoned(micros, Some(if is_old { 0 } else { digits.into() }), out);
                    }
                    None if nullable => out.extend_from_slice(b"null"),
                    None => moment::write_zoned(0, None, out),
                }
                Ok(())
            })
        }
        kind::BIT => match bit_count(column) {
            1 => make(name, bits::write_bit),
            count => make(name, move |raw, out| {
                if raw.len() != count.div_ceil(8) {
                    return Err(WIDTH);
                }
                let lowest_first: Vec<u8> = raw.iter().rev().copied().collect();
                binary::write_bytes(&lowest_first, out);
                Ok(())
            }),
        },
        kind::ENUM => {
            let labels = labels(column, charsets);
            make(name, move |raw, out| bits::write_enum(raw, &labels, out))
        }
        kind::SET => {
            let labels = labels(column, charsets);
            make(name, move |raw, out| write_set(raw, &labels, out))
        }
        kind::JSON => make(name, |raw, out| {
            let mut document = Vec::with_capacity(raw.len());
            json::write_json(raw, &mut document)?;
            write_string(&document, out);
            Ok(())
        }),
        kind::GEOMETRY => {
            let is_point = column.geometry_type == Some(POINT);
            make(name, move |raw, out| write_geometry(raw, is_point, out))
        }
        kind::VECTOR => make(name, write_vector),
        kind::STRING => match charset_of(column, None, charsets) {
            None => make(name, |_, _| Err("its character set is not known")),
            Some(charset) if charset.is_binary() => {
                let len = usize::from(string_length(column));
                make(name, move |raw, out| {
                    text::padded::<{ text::MAX_BINARY }>(raw, len, |raw| {
                        binary::write(raw, binaries, out);
                        Ok(())
                    })
                })
            }
            Some(charset) => make(name, move |raw, out| text::write_char(raw, &charset, out)),
        },
        kind::VARCHAR | kind::VAR_STRING | kind::TINY_BLOB | kind::MEDIUM_BLOB | kind::LONG_BLOB | kind::BLOB => {
            match charset_of(column, None, charsets) {
                None => make(name, |_, _| Err("its character set is not known")),
                Some(charset) if charset.is_binary() => make(name, move |raw, out| {
                    binary::write(raw, binaries, out);
                    Ok(())
                }),
                Some(charset) => make(name, move |raw, out| text::write_text(raw, &charset, out)),
            }
        }
        _ => make(name, |_, _| Err("is of a type that is not known here")),
    }
}

fn fixed<const N: usize>(raw: &[u8]) -> Result<[u8; N], &'static str> {
    raw.try_into().map_err(|_| WIDTH)
}

/// The day; `None` of what no calendar has: zero and partial dates, and 31 February.
fn day(date: Date) -> Option<i64> {
    let (year, month, day) = (i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    let first = days(year, month.max(1), 1);
    let is_there = month > 0 && (1..=days(next_year, next_month, 1) - first).contains(&day);
    is_there.then_some(first + day - 1)
}

fn of_day(clock: Clock) -> i64 {
    let seconds = (i64::from(clock.hours) * 60 + i64::from(clock.minutes)) * 60 + i64::from(clock.seconds);
    seconds * 1_000_000 + i64::from(clock.micros)
}

fn micros((date, clock): (Date, Clock)) -> Option<i64> {
    Some(day(date)? * DAY + of_day(clock))
}

fn write_date(date: Date, nullable: bool, mode: Time, out: &mut Vec<u8>) {
    match day(date).or((!nullable).then_some(0)) {
        Some(days) => moment::write_date(days, mode, out),
        None => out.extend_from_slice(b"null"),
    }
}

/// TIME is a length of time; what is none of a day is null where only such can be written.
fn write_time(negative: bool, clock: Clock, digits: u8, mode: Time, out: &mut Vec<u8>) {
    let micros = if negative { -of_day(clock) } else { of_day(clock) };
    if matches!(mode, Time::Connect | Time::IsoString) && !(0..=DAY).contains(&micros) {
        out.extend_from_slice(b"null");
    } else {
        moment::write_time(micros, digits.into(), mode, out);
    }
}

/// SET: the labels with commas between.
fn write_set(raw: &[u8], labels: &bits::Labels, out: &mut Vec<u8>) -> Outcome {
    let start = out.len();
    bits::write_set(raw, labels, out)?;
    // `["x","y"]`: the labels' quotes and the brackets go, the commas between them stay.
    let array = out.split_off(start);
    let inside = array.get(1..array.len().saturating_sub(1)).unwrap_or_default();
    out.push(b'"');
    let mut rest = inside;
    let mut is_text = false;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'"' => is_text = !is_text,
            b'\\' if is_text => {
                out.push(b'\\');
                if let Some((escaped, tail)) = rest.split_first() {
                    out.push(*escaped);
                    rest = tail;
                }
            }
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
    Ok(())
}

/// GEOMETRY: the spatial reference's id, four bytes little-endian, then WKB. Of a column of points the coordinates too.
fn write_geometry(raw: &[u8], is_point: bool, out: &mut Vec<u8>) -> Outcome {
    let (srid, wkb) = raw.split_first_chunk::<4>().ok_or("is too short for a spatial reference")?;
    out.push(b'{');
    if is_point {
        let (x, rest) = wkb.get(5..).and_then(<[u8]>::split_first_chunk::<8>).ok_or("is no point")?;
        out.extend_from_slice(b"\"x\":");
        number::write_double(f64::from_le_bytes(*x), out);
        out.extend_from_slice(b",\"y\":");
        number::write_double(f64::from_le_bytes(fixed(rest)?), out);
        out.push(b',');
    }
    out.extend_from_slice(b"\"wkb\":");
    binary::write_bytes(wkb, out);
    out.extend_from_slice(b",\"srid\":");
    match u32::from_le_bytes(*srid) {
        0 => out.extend_from_slice(b"null"),
        srid => figvine_change::json::write_uint(u64::from(srid), out),
    }
    out.push(b'}');
    Ok(())
}

fn write_vector(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    let (numbers, rest) = raw.as_chunks::<4>();
    if !rest.is_empty() {
        return Err("ends within an element");
    }
    out.push(b'[');
    for (place, bytes) in numbers.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        number::write_float(f32::from_le_bytes(*bytes), out);
    }
    out.push(b']');
    Ok(())
}
