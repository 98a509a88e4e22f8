//! A whole log file through the decoder, as a reader of logs uses it.

use std::collections::HashMap;
use std::error::Error;

use figvine_change::{Cell, Row};
use figvine_mysql::decode::file::FileEvents;
use figvine_mysql::decode::header::Header;
use figvine_mysql::decode::rows::RowsKind;
use figvine_mysql::decode::table_map::TableMap;
use figvine_mysql::decode::{Decoder, Event, EventError};

/// What is met in a log.
pub(crate) enum Seen<'a> {
    /// An event; `depth` 1 for one that was compressed.
    Event { depth: usize, header: &'a Header, event: &'a Event<'a>, decoder: &'a Decoder },
    /// A table's shape.
    Table(&'a TableMap),
    /// A row.
    Row(SeenRow<'a>),
}

/// A row, with what its ranges point into.
pub(crate) struct SeenRow<'a> {
    pub(crate) table: &'a TableMap,
    pub(crate) kind: RowsKind,
    pub(crate) buffer: &'a [u8],
    cells: &'a [Cell],
    pub(crate) before: Option<Row>,
    pub(crate) after: Option<Row>,
    pub(crate) partial: &'a [usize],
}

impl SeenRow<'_> {
    pub(crate) fn cells(&self, row: Row) -> &[Cell] {
        &self.cells[row.first as usize..][..row.len as usize]
    }
}

#[derive(Default)]
struct Walk {
    decoder: Decoder,
    tables: HashMap<u64, TableMap>,
    cells: Vec<Cell>,
}

/// Reads a file up to its end or the first error, whose whole chain is returned with its place in the file.
pub(crate) fn walk(file: &[u8], visit: &mut dyn FnMut(Seen<'_>)) -> Result<(), String> {
    let mut walk = Walk::default();
    for event in FileEvents::new(file).map_err(|error| error.to_string())? {
        let (at, event) = event.map_err(|error| error.to_string())?;
        walk.event(file, at, event, visit).map_err(|error| format!("at byte {at}: {error}"))?;
    }
    Ok(())
}

/// An error and what led to it.
pub(crate) fn chain(error: &EventError) -> String {
    format!("{error}: {}", error.source().expect("a reason"))
}

impl Walk {
    fn event(&mut self, file: &[u8], at: usize, bytes: &[u8], visit: &mut dyn FnMut(Seen<'_>)) -> Result<(), String> {
        let base = u32::try_from(at).map_err(|error| error.to_string())?;
        let (header, event) = self.decoder.event(bytes, base).map_err(|error| chain(&error))?;
        self.visit(0, file, &header, &event, visit)?;
        let mut buffer = Vec::new();
        match event {
            Event::Payload(payload) => {
                let mut events = payload.events().map_err(|error| error.to_string())?;
                while events.append_next(&mut buffer).map_err(|error| error.to_string())?.is_some() {
                    self.inner(&buffer, visit)?;
                    buffer.clear();
                }
            }
            Event::Compressed(compressed) => {
                compressed.append_expanded(&mut buffer).map_err(|error| error.to_string())?;
                self.inner(&buffer, visit)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn inner(&mut self, buffer: &[u8], visit: &mut dyn FnMut(Seen<'_>)) -> Result<(), String> {
        let (header, event) = self.decoder.inner(buffer, 0).map_err(|error| chain(&error))?;
        self.visit(1, buffer, &header, &event, visit)
    }

    fn visit(
        &mut self,
        depth: usize,
        buffer: &[u8],
        header: &Header,
        event: &Event<'_>,
        visit: &mut dyn FnMut(Seen<'_>),
    ) -> Result<(), String> {
        visit(Seen::Event { depth, header, event, decoder: &self.decoder });
        match event {
            Event::TableMap(map) => {
                let table = map.parse().map_err(|error| error.to_string())?;
                visit(Seen::Table(&table));
                self.tables.insert(map.table_id, table);
            }
            Event::Rows(rows) if !rows.is_empty() => {
                let Some(table) = self.tables.get(&rows.table_id) else {
                    return Err(format!("rows of table {}, whose shape was not told", rows.table_id));
                };
                let mut reader = rows.of(table).map_err(|error| error.to_string())?;
                while let Some(images) = reader.next(&mut self.cells) {
                    let images = images.map_err(|error| error.to_string())?;
                    visit(Seen::Row(SeenRow {
                        table,
                        kind: rows.kind,
                        buffer,
                        cells: &self.cells,
                        before: images.before,
                        after: images.after,
                        partial: reader.partial(),
                    }));
                    self.cells.clear();
                }
            }
            _ => {}
        }
        Ok(())
    }
}
