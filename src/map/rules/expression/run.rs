//! Running an expression.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use super::compile::{Comparison, Function, Loop, Node, Operator, TxField};
use super::decimal::Decimal;
use super::value::{Reading, Value, is_whole};
use super::{EvalError, Side};

/// What a slot holds for a change.
#[derive(Debug, Clone, Copy)]
pub(in crate::map::rules) enum Slot<'a> {
    /// The row of this name is not there.
    NoRow(&'static str),
    /// The log did not carry it.
    NotCarried(&'a str),
    /// Its JSON.
    Json(&'a str, Reading),
}

/// The transaction.
#[derive(Debug, Clone, Copy)]
pub(in crate::map::rules) struct Tx<'a> {
    pub(in crate::map::rules) id: &'a str,
    pub(in crate::map::rules) position: &'a str,
    pub(in crate::map::rules) committed_at: &'a str,
    pub(in crate::map::rules) origin: Option<&'a str>,
    pub(in crate::map::rules) traceparent: Option<&'a str>,
}

/// Columns by their names, with their slots.
pub(in crate::map::rules) type Columns<'a> = &'a [(Box<str>, usize)];

/// What an expression runs over.
pub(in crate::map::rules) struct Scope<'a> {
    /// In the order of the rule's columns.
    pub(in crate::map::rules) slots: &'a [Slot<'a>],
    /// Of each side, where it is there: name and slot of each column; empty where no expression wants it whole.
    pub(in crate::map::rules) rows: [Option<Columns<'a>>; 2],
    /// In the order of the aggregate's.
    pub(in crate::map::rules) parts: &'a [Value<'a>],
    pub(in crate::map::rules) tx: Tx<'a>,
}

impl<'a> Scope<'a> {
    fn slot(&self, slot: usize) -> Slot<'a> {
        self.slots.get(slot).copied().unwrap_or(Slot::NoRow("before"))
    }

    fn column(&self, slot: usize) -> Result<Value<'a>, EvalError> {
        match self.slot(slot) {
            Slot::Json(text, reading) => Value::of_column(text, reading),
            Slot::NotCarried(name) => Err(EvalError::NotCarried(name.into())),
            Slot::NoRow(side) => Err(EvalError::NoRow(side)),
        }
    }

    fn row(&self, side: Side) -> Result<Value<'a>, EvalError> {
        let Some(columns) = self.rows.get(side as usize).copied().flatten() else { return Ok(Value::Null) };
        let mut members = Vec::with_capacity(columns.len());
        for (name, slot) in columns {
            match self.slot(*slot) {
                Slot::Json(text, reading) => members.push((Cow::Borrowed(&**name), Value::of_column(text, reading)?)),
                // Absent, as in the body of a change.
                Slot::NotCarried(_) | Slot::NoRow(_) => {}
            }
        }
        Ok(Value::Map(Rc::new(members)))
    }
}

type Ran<'a> = Result<Value<'a>, EvalError>;

pub(super) fn run<'a>(node: &'a Node, scope: &Scope<'a>, locals: &mut Vec<Value<'a>>) -> Ran<'a> {
    Ok(match node {
        Node::Null => Value::Null,
        Node::Bool(value) => Value::Bool(*value),
        Node::Int(number) => Value::Int(*number),
        Node::Float(number) => Value::Float(*number),
        Node::Text(text) => Value::Text(Cow::Borrowed(text)),
        Node::Column(slot) => scope.column(*slot)?,
        Node::Carried(slot) => Value::Bool(matches!(scope.slot(*slot), Slot::Json(..))),
        Node::Row(side) => scope.row(*side)?,
        Node::NoRow(side) => Value::Bool(scope.rows.get(*side as usize).copied().flatten().is_none()),
        Node::Parts(place) => scope.parts.get(*place).cloned().unwrap_or(Value::Null),
        Node::Tx(field) => match field {
            TxField::Id => Value::Text(Cow::Borrowed(scope.tx.id)),
            TxField::Position => Value::Text(Cow::Borrowed(scope.tx.position)),
            TxField::CommittedAt => Value::Text(Cow::Borrowed(scope.tx.committed_at)),
            TxField::Origin => scope.tx.origin.map_or(Value::Null, |origin| Value::Text(Cow::Borrowed(origin))),
            TxField::Traceparent => scope.tx.traceparent.map_or(Value::Null, |trace| Value::Text(Cow::Borrowed(trace))),
        },
        Node::Local(place) => locals.get(*place).cloned().unwrap_or(Value::Null),
        Node::Member(of, name) => {
            let of = run(of, scope, locals)?.opened()?;
            member(&of, name)?.ok_or_else(|| EvalError::NoMember(name.clone()))?
        }
        Node::HasMember(of, name) => Value::Bool(member(&run(of, scope, locals)?.opened()?, name)?.is_some()),
        Node::Index(of, index) => {
            let of = run(of, scope, locals)?.opened()?;
            let index = run(index, scope, locals)?.opened()?;
            match (&of, &index) {
                (Value::List(items), Value::Int(place)) => {
                    let item = usize::try_from(*place).ok().and_then(|place| items.get(place));
                    item.cloned().ok_or(EvalError::OutOfBounds)?
                }
                (Value::Map(_), Value::Text(name)) => {
                    member(&of, name)?.ok_or_else(|| EvalError::NoMember(name.as_ref().into()))?
                }
                _ => return Err(EvalError::no_overload("an index", &of, &index)),
            }
        }
        Node::Not(of) => Value::Bool(!truth("!", run(of, scope, locals))?),
        Node::Negate(of) => match run(of, scope, locals)?.opened()? {
            Value::Int(number) => whole(number.checked_neg())?,
            Value::Float(number) => Value::Float(-number),
            Value::Decimal(decimal) => exact(decimal.negated())?,
            other => return Err(EvalError::not_for("-", &other)),
        },
        // An error beside what decides alone is none: as CEL has it, in either order.
        Node::And(a, b) => match truth("&&", run(a, scope, locals)) {
            Ok(false) => Value::Bool(false),
            Ok(true) => Value::Bool(truth("&&", run(b, scope, locals))?),
            Err(error) => match truth("&&", run(b, scope, locals)) {
                Ok(false) => Value::Bool(false),
                _ => return Err(error),
            },
        },
        Node::Or(a, b) => match truth("||", run(a, scope, locals)) {
            Ok(true) => Value::Bool(true),
            Ok(false) => Value::Bool(truth("||", run(b, scope, locals))?),
            Err(error) => match truth("||", run(b, scope, locals)) {
                Ok(true) => Value::Bool(true),
                _ => return Err(error),
            },
        },
        Node::Conditional(parts) => {
            let [condition, yes, no] = &**parts;
            let holds = truth("?:", run(condition, scope, locals))?;
            run(if holds { yes } else { no }, scope, locals)?
        }
        Node::Equal(a, b) => {
            let a = run(a, scope, locals)?;
            Value::Bool(a.equals(&run(b, scope, locals)?)?)
        }
        Node::Compare(comparison, a, b) => {
            let a = run(a, scope, locals)?;
            let order = a.compare(&run(b, scope, locals)?)?;
            // Nothing is less or greater than NaN.
            Value::Bool(order.is_some_and(|order| match comparison {
                Comparison::Less => order == Ordering::Less,
                Comparison::LessEqual => order != Ordering::Greater,
                Comparison::Greater => order == Ordering::Greater,
                Comparison::GreaterEqual => order != Ordering::Less,
            }))
        }
        Node::Arithmetic(operator, a, b) => {
            let a = run(a, scope, locals)?.opened()?;
            arithmetic(*operator, a, run(b, scope, locals)?.opened()?)?
        }
        Node::In(item, of) => {
            let item = run(item, scope, locals)?;
            match (&item, run(of, scope, locals)?.opened()?) {
                (_, Value::List(items)) => {
                    let mut is_there = false;
                    for other in items.iter() {
                        is_there = is_there || item.equals(other)?;
                    }
                    Value::Bool(is_there)
                }
                (Value::Text(name), of @ Value::Map(_)) => Value::Bool(member(&of, name)?.is_some()),
                (_, of) => return Err(EvalError::no_overload("in", &item, &of)),
            }
        }
        Node::Call(function, args) => call(*function, args, scope, locals)?,
        Node::Matches(of, regex) => match run(of, scope, locals)?.opened()? {
            Value::Text(text) => Value::Bool(regex.is_match(&text)),
            other => return Err(EvalError::not_for("matches", &other)),
        },
        Node::List(items) => {
            let items = items.iter().map(|item| run(item, scope, locals)).collect::<Result<Vec<_>, _>>()?;
            Value::List(Rc::new(items))
        }
        Node::Map(members) => {
            let mut made: Vec<(Cow<'a, str>, Value<'a>)> = Vec::with_capacity(members.len());
            for (name, value) in members {
                match run(name, scope, locals)?.opened()? {
                    Value::Text(name) => made.push((name, run(value, scope, locals)?)),
                    other => return Err(EvalError::not_for("a member's name", &other)),
                }
            }
            Value::Map(Rc::new(made))
        }
        Node::Loop(parts) => run_loop(parts, scope, locals)?,
    })
}

fn run_loop<'a>(parts: &'a Loop, scope: &Scope<'a>, locals: &mut Vec<Value<'a>>) -> Ran<'a> {
    let Loop { range, start, goes_on, step, result } = parts;
    let items: Vec<Value<'a>> = match run(range, scope, locals)?.opened()? {
        Value::List(items) => items.iter().cloned().collect(),
        Value::Map(members) => members.iter().map(|(name, _)| Value::Text(name.clone())).collect(),
        other => return Err(EvalError::not_for("a loop", &other)),
    };
    let place = locals.len();
    let start = run(start, scope, locals)?;
    locals.push(start);
    for item in items {
        locals.push(item);
        let stepped = match truth("a loop", run(goes_on, scope, locals)) {
            Ok(true) => run(step, scope, locals).map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        locals.truncate(place + 1);
        match (stepped, locals.last_mut()) {
            (Ok(Some(value)), Some(accumulated)) => *accumulated = value,
            (Ok(_), _) => break,
            (Err(error), _) => {
                locals.truncate(place);
                return Err(error);
            }
        }
    }
    let ran = run(result, scope, locals);
    locals.truncate(place);
    ran
}

fn truth(operator: &'static str, ran: Ran<'_>) -> Result<bool, EvalError> {
    match ran?.opened()? {
        Value::Bool(value) => Ok(value),
        other => Err(EvalError::not_for(operator, &other)),
    }
}

fn member<'a>(of: &Value<'a>, name: &str) -> Result<Option<Value<'a>>, EvalError> {
    match of {
        Value::Map(members) => Ok(members.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())),
        other => Err(EvalError::not_for("a member", other)),
    }
}

fn whole<'a>(number: Option<i128>) -> Ran<'a> {
    number.filter(|number| is_whole(*number)).map(Value::Int).ok_or(EvalError::Overflow)
}

fn exact<'a>(decimal: Option<Decimal>) -> Ran<'a> {
    decimal.map(Value::Decimal).ok_or(EvalError::Overflow)
}

fn arithmetic<'a>(operator: Operator, a: Value<'a>, b: Value<'a>) -> Ran<'a> {
    use Operator::{Add, Divide, Modulo, Multiply, Subtract};
    match (operator, a, b) {
        (Divide | Modulo, Value::Int(_), Value::Int(0)) => Err(EvalError::DivisionByZero),
        (operator, Value::Int(a), Value::Int(b)) => whole(match operator {
            Add => a.checked_add(b),
            Subtract => a.checked_sub(b),
            Multiply => a.checked_mul(b),
            Divide => a.checked_div(b),
            Modulo => a.checked_rem(b),
        }),
        (Add, Value::Text(a), Value::Text(b)) => Ok(Value::Text(Cow::Owned(a.into_owned() + &b))),
        (Add, Value::List(a), Value::List(b)) => Ok(Value::List(Rc::new({
            // A loop's own list is nobody else's: it grows in place.
            let mut items = Rc::unwrap_or_clone(a);
            items.extend(b.iter().cloned());
            items
        }))),
        (operator, Value::Decimal(a), Value::Int(b)) => decimals(operator, a, Decimal::whole(b)),
        (operator, Value::Int(a), Value::Decimal(b)) => decimals(operator, Decimal::whole(a), b),
        (operator, Value::Decimal(a), Value::Decimal(b)) => decimals(operator, a, b),
        // A literal is what it is written as.
        (operator, Value::Decimal(a), Value::Float(b)) if let Some(b) = Decimal::parse(&b.to_string()) => {
            decimals(operator, a, b)
        }
        (operator, Value::Float(a), Value::Decimal(b)) if let Some(a) = Decimal::parse(&a.to_string()) => {
            decimals(operator, a, b)
        }
        (operator, Value::Float(a), Value::Float(b)) => Ok(Value::Float(match operator {
            Add => a + b,
            Subtract => a - b,
            Multiply => a * b,
            Divide => a / b,
            Modulo => return Err(EvalError::NoOverload("%", "double".into())),
        })),
        (operator, a, b) => Err(EvalError::no_overload(name_of(operator), &a, &b)),
    }
}

fn name_of(operator: Operator) -> &'static str {
    match operator {
        Operator::Add => "+",
        Operator::Subtract => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::Modulo => "%",
    }
}

fn decimals<'a>(operator: Operator, a: Decimal, b: Decimal) -> Ran<'a> {
    exact(match operator {
        Operator::Add => a.plus(b),
        Operator::Subtract => a.minus(b),
        Operator::Multiply => a.times(b),
        // Seldom exact: who wants it says double().
        Operator::Divide | Operator::Modulo => {
            return Err(EvalError::NoOverload(
                name_of(operator),
                "decimal; write double(..) for a rounded result".into(),
            ));
        }
    })
}

fn call<'a>(function: Function, args: &'a [Node], scope: &Scope<'a>, locals: &mut Vec<Value<'a>>) -> Ran<'a> {
    let ran = |at: usize, locals: &mut Vec<Value<'a>>| match args.get(at) {
        Some(node) => run(node, scope, locals)?.opened(),
        None => Ok(Value::Null),
    };
    if function == Function::NotStrictlyFalse {
        return Ok(Value::Bool(!matches!(ran(0, locals), Ok(Value::Bool(false)))));
    }
    let first = ran(0, locals)?;
    let text_pair = |locals: &mut Vec<Value<'a>>, name: &'static str, ask: fn(&str, &str) -> bool| match (
        &first,
        ran(1, locals)?,
    ) {
        (Value::Text(text), Value::Text(other)) => Ok(Value::Bool(ask(text, &other))),
        (first, other) => Err(EvalError::no_overload(name, first, &other)),
    };
    let count = |count: usize| Value::Int(i128::try_from(count).unwrap_or(i128::MAX));
    Ok(match function {
        Function::NotStrictlyFalse => Value::Bool(true),
        Function::Size => match &first {
            Value::Text(text) => count(text.chars().count()),
            Value::List(items) => count(items.len()),
            Value::Map(members) => count(members.len()),
            other => return Err(EvalError::not_for("size", other)),
        },
        Function::StartsWith => text_pair(locals, "startsWith", |text, other| text.starts_with(other))?,
        Function::EndsWith => text_pair(locals, "endsWith", |text, other| text.ends_with(other))?,
        Function::Contains => text_pair(locals, "contains", |text, other| text.contains(other))?,
        Function::LowerAscii | Function::UpperAscii | Function::Trim => match &first {
            Value::Text(text) => Value::Text(Cow::Owned(match function {
                Function::LowerAscii => text.to_ascii_lowercase(),
                Function::UpperAscii => text.to_ascii_uppercase(),
                _ => text.trim().to_owned(),
            })),
            other => return Err(EvalError::not_for("a function of strings", other)),
        },
        Function::String => match first {
            text @ Value::Text(_) => text,
            Value::Null | Value::List(_) | Value::Map(_) | Value::Json(_) => {
                return Err(EvalError::not_for("string", &first));
            }
            other => {
                let mut json = Vec::new();
                other.write(&mut json);
                let text = String::from_utf8_lossy(&json).trim_matches('"').to_owned();
                Value::Text(Cow::Owned(text))
            }
        },
        Function::Int => match first {
            number @ Value::Int(_) => number,
            Value::Decimal(decimal) => whole(Some(decimal.truncated()))?,
            #[expect(clippy::cast_possible_truncation, reason = "in range, and towards zero is what int() means")]
            Value::Float(number) if number.abs() < 9.2e18 => Value::Int(number as i128),
            Value::Text(text) => whole(text.parse().ok())?,
            other => return Err(EvalError::not_for("int", &other)),
        },
        Function::Double => match first {
            number @ Value::Float(_) => number,
            #[expect(clippy::cast_precision_loss, reason = "who asks for a double asks for that")]
            Value::Int(number) => Value::Float(number as f64),
            Value::Decimal(decimal) => Value::Float(decimal.to_float()),
            Value::Text(text) => Value::Float(text.parse().map_err(|_| EvalError::Unreadable("a double"))?),
            other => return Err(EvalError::not_for("double", &other)),
        },
        Function::Decimal => match first {
            decimal @ Value::Decimal(_) => decimal,
            Value::Int(number) => Value::Decimal(Decimal::whole(number)),
            Value::Text(text) => Value::Decimal(Decimal::parse(&text).ok_or(EvalError::Unreadable("a decimal"))?),
            other => return Err(EvalError::not_for("decimal", &other)),
        },
        Function::Sum => match first {
            Value::List(items) => {
                let mut sum = Value::Int(0);
                for item in items.iter() {
                    sum = arithmetic(Operator::Add, sum, item.clone().opened()?)?;
                }
                sum
            }
            other => return Err(EvalError::not_for("sum", &other)),
        },
    })
}
