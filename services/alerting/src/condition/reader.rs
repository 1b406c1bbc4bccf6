//! Reads a condition before it is used: which variables it names, and over what it looks back.

use std::time::Duration;

use cel::IdedExpr;
use cel::common::ast::{Expr, LiteralValue};
use fleet_shared::config::duration;

use super::Topic;
use crate::window::Function;

/// Names of the variables that stand for aggregates; `@` begins no name that can be written.
pub(super) const AGGREGATE: &str = "@";

/// A function over the last while, of which there is one for each different call in a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aggregate {
    pub(super) function: Function,
    pub(super) span: Duration,
}

/// Walks a condition: puts variables in place of aggregates, and finds names nobody knows.
pub(super) struct Reader {
    topic: Topic,
    pub(super) aggregates: Vec<Aggregate>,
    /// Variables that a message may lack.
    pub(super) optional: Vec<&'static str>,
    /// Variables of comprehensions.
    local: Vec<String>,
    /// The first thing that is wrong, and the number of its place.
    pub(super) fault: Option<(u64, String)>,
}

impl Reader {
    pub(super) fn new(topic: Topic) -> Self {
        Self {
            topic,
            aggregates: Vec::new(),
            optional: Vec::new(),
            local: Vec::new(),
            fault: None,
        }
    }

    pub(super) fn read(&mut self, node: &mut IdedExpr) {
        if self.fault.is_some() {
            return;
        }
        let id = node.id;
        match &mut node.expr {
            Expr::Ident(name) => self.name(id, name),
            Expr::Call(call) => {
                if call.target.is_none()
                    && let Some(function) = Function::from_name(&call.func_name)
                {
                    let replaced = self.aggregate(id, function, &call.func_name, &call.args);
                    if let Some(name) = replaced {
                        node.expr = Expr::Ident(name);
                    }
                    return;
                }
                if let Some(target) = &mut call.target {
                    self.read(target);
                }
                for argument in &mut call.args {
                    self.read(argument);
                }
            }
            Expr::Select(select) => self.read(&mut select.operand),
            Expr::List(list) => {
                for element in &mut list.elements {
                    self.read(element);
                }
            }
            Expr::Comprehension(comprehension) => {
                self.read(&mut comprehension.iter_range);
                let locals = self.local.len();
                self.local.push(comprehension.iter_var.clone());
                self.local.extend(comprehension.iter_var2.clone());
                self.local.push(comprehension.accu_var.clone());
                self.read(&mut comprehension.accu_init);
                self.read(&mut comprehension.loop_cond);
                self.read(&mut comprehension.loop_step);
                self.read(&mut comprehension.result);
                self.local.truncate(locals);
            }
            Expr::Map(_) | Expr::Struct(_) => {
                self.fault = Some((id, "a condition has no use for maps".to_owned()));
            }
            Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn name(&mut self, id: u64, name: &str) {
        if self.local.iter().any(|local| local == name) {
            return;
        }
        let known = self.topic.variables();
        match known.iter().find(|(variable, _)| *variable == name) {
            Some((variable, true)) if !self.optional.contains(variable) => {
                self.optional.push(variable);
            }
            Some(_) => {}
            None => {
                let names: Vec<&str> = known.iter().map(|(variable, _)| *variable).collect();
                self.fault = Some((
                    id,
                    format!(
                        "there is no variable `{name}`; there are {}",
                        names.join(", ")
                    ),
                ));
            }
        }
    }

    fn aggregate(
        &mut self,
        id: u64,
        function: Function,
        name: &str,
        arguments: &[IdedExpr],
    ) -> Option<String> {
        if self.topic == Topic::Status {
            self.fault = Some((id, format!("`{name}` needs values, and a status has none")));
            return None;
        }
        let span = match arguments {
            [
                IdedExpr {
                    expr: Expr::Literal(LiteralValue::String(text)),
                    ..
                },
            ] => duration(text.inner()).ok().filter(|span| !span.is_zero()),
            _ => None,
        };
        let Some(span) = span else {
            self.fault = Some((
                id,
                format!("`{name}` takes one duration in quotes, such as {name}('5m')"),
            ));
            return None;
        };
        let aggregate = Aggregate { function, span };
        let known = self.aggregates.iter().position(|known| *known == aggregate);
        let index = known.unwrap_or_else(|| {
            self.aggregates.push(aggregate);
            self.aggregates.len() - 1
        });
        Some(format!("{AGGREGATE}{index}"))
    }
}
