//! What the bodies of domain events hold, as far as the columns tell.

use std::sync::Arc;

use figvine_change::{JsonType, Table};

use super::settings::{CompiledData, Rule, Settings, looked_up_at};
use crate::schema::{EventShape, Field};

impl Settings {
    /// The types of events that rules make, out of tables that are there.
    #[must_use]
    pub fn event_shapes(&self, tables: &[Arc<Table>]) -> Vec<(Arc<str>, EventShape)> {
        let shapes = self.rules.iter().filter_map(|rule| {
            let root = tables.iter().find(|table| *table.schema == *rule.schema && *table.name == *rule.table)?;
            let shape =
                EventShape { name: (*rule.event_type).into(), major: rule.major, fields: rule.fields(root, tables)? };
            Some((Arc::clone(&rule.versioned), shape))
        });
        shapes.collect()
    }
}

impl Rule {
    /// `None` where it does not fit its tables: that is told elsewhere.
    fn fields(&self, root: &Table, tables: &[Arc<Table>]) -> Option<Vec<Field>> {
        let field = |name: &str, json, is_optional| Field { name: name.into(), json, is_nullable: true, is_optional };
        let column = |table: &Table, name: &str| {
            let found = table.columns.iter().find(|column| *column.name == *name);
            found.map(|column| column.codec.json_type())
        };
        let mut lists = Vec::new();
        for include in self.aggregate.iter().flat_map(|aggregate| &aggregate.include) {
            let (schema, name) = include.place(&self.schema);
            let table = tables.iter().find(|table| *table.schema == *schema && *table.name == *name)?;
            let names: Vec<&str> = match include.columns.as_slice() {
                [] => table.columns.iter().map(|column| &*column.name).collect(),
                columns => columns.iter().map(String::as_str).collect(),
            };
            let members: Option<Vec<_>> =
                names.into_iter().map(|name| Some((name.into(), column(table, name)?))).collect();
            lists.push((include.name.as_str(), JsonType::List(Box::new(JsonType::Object(members?)))));
        }
        let looked_up = self.aggregate.iter().flat_map(|aggregate| aggregate.looked_up());
        let marks = looked_up.map(|list| Field {
            name: looked_up_at(list).into(),
            json: JsonType::TimestampWithZone,
            is_nullable: false,
            is_optional: true,
        });
        let fields: Option<Vec<_>> = match &self.data {
            CompiledData::Row => {
                // What the log did not carry is absent.
                let row = root.columns.iter().map(|column| field(&column.name, column.codec.json_type(), true));
                Some(row.chain(lists.into_iter().map(|(name, json)| field(name, json, false))).collect())
            }
            CompiledData::Members(members) => members
                .iter()
                .map(|member| {
                    let json = match (member.expression.as_slot(), member.expression.as_parts()) {
                        (Some(slot), _) => column(root, &self.names.columns.get(slot)?.1)?,
                        (_, Some(list)) => lists.get(list)?.1.clone(),
                        _ => JsonType::Any,
                    };
                    Some(field(&member.name, json, false))
                })
                .collect(),
        };
        fields.map(|fields| fields.into_iter().chain(marks).collect())
    }
}
