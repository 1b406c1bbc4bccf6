//! What of Jinja a template may use.
//!
//! The engine counts work by instructions and bytes, and a list is made, added to itself and compared
//! in one instruction, however long it grows. So lists and maps cannot be made: there are those of a
//! notification, and lists of constants to look into or to go through.

use minijinja::machinery::ast::{BinOpKind, CallArg, CompareOpKind, Expr, Stmt};
use minijinja::machinery::{Span, parse};
use minijinja::syntax::SyntaxConfig;

use super::TemplateError;

/// Looks whether `source` keeps to it.
///
/// # Errors
/// What it cannot use, or what the parser says.
pub(super) fn check(source: &str, name: &str) -> Result<(), TemplateError> {
    statement(&parse(source, name, SyntaxConfig::default())?)
}

fn refused(span: Span, what: &str) -> TemplateError {
    TemplateError::Syntax {
        line: usize::from(span.start_line),
        what: what.to_owned(),
    }
}

fn statements(body: &[Stmt<'_>]) -> Result<(), TemplateError> {
    body.iter().try_for_each(statement)
}

fn statement(it: &Stmt<'_>) -> Result<(), TemplateError> {
    match it {
        Stmt::Template(it) => statements(&it.children),
        Stmt::EmitRaw(_) => Ok(()),
        Stmt::EmitExpr(it) => expression(&it.expr),
        Stmt::ForLoop(it) => {
            expression(&it.target)?;
            looked_into(&it.iter)?;
            it.filter_expr.iter().try_for_each(expression)?;
            statements(&it.body)?;
            statements(&it.else_body)
        }
        Stmt::IfCond(it) => {
            expression(&it.expr)?;
            statements(&it.true_body)?;
            statements(&it.false_body)
        }
        Stmt::WithBlock(it) => {
            for (target, value) in &it.assignments {
                expression(target)?;
                expression(value)?;
            }
            statements(&it.body)
        }
        Stmt::Set(it) => {
            expression(&it.target)?;
            expression(&it.expr)
        }
        Stmt::SetBlock(it) => {
            expression(&it.target)?;
            it.filter.iter().try_for_each(expression)?;
            statements(&it.body)
        }
        Stmt::AutoEscape(it) => {
            expression(&it.enabled)?;
            statements(&it.body)
        }
        Stmt::FilterBlock(it) => {
            expression(&it.filter)?;
            statements(&it.body)
        }
        Stmt::Do(it) => Err(refused(it.span(), "`do` has nothing to do here")),
    }
}

fn expression(it: &Expr<'_>) -> Result<(), TemplateError> {
    match it {
        Expr::Var(_) | Expr::Const(_) => Ok(()),
        Expr::Slice(it) => {
            expression(&it.expr)?;
            let parts = [&it.start, &it.stop, &it.step];
            parts.into_iter().flatten().try_for_each(expression)
        }
        Expr::UnaryOp(it) => expression(&it.expr),
        Expr::BinOp(it) => {
            expression(&it.left)?;
            match it.op {
                BinOpKind::In => looked_into(&it.right),
                _ => expression(&it.right),
            }
        }
        Expr::Compare(it) => {
            expression(&it.expr)?;
            it.ops.iter().try_for_each(|next| match next.op {
                CompareOpKind::In | CompareOpKind::NotIn => looked_into(&next.expr),
                _ => expression(&next.expr),
            })
        }
        Expr::IfExpr(it) => {
            expression(&it.test_expr)?;
            expression(&it.true_expr)?;
            it.false_expr.iter().try_for_each(expression)
        }
        Expr::Filter(it) => {
            it.expr.iter().try_for_each(expression)?;
            arguments(&it.args)
        }
        Expr::Test(it) => {
            expression(&it.expr)?;
            arguments(&it.args)
        }
        Expr::GetAttr(it) => expression(&it.expr),
        Expr::GetItem(it) => {
            expression(&it.expr)?;
            expression(&it.subscript_expr)
        }
        Expr::Call(it) => {
            expression(&it.expr)?;
            arguments(&it.args)
        }
        Expr::List(_) | Expr::Tuple(_) | Expr::Map(_) => Err(refused(
            it.span(),
            "lists and maps cannot be made here; a list of constants may stand after `in`",
        )),
    }
}

fn arguments(given: &[CallArg<'_>]) -> Result<(), TemplateError> {
    given.iter().try_for_each(|it| match it {
        CallArg::Pos(it)
        | CallArg::Kwarg(_, it)
        | CallArg::PosSplat(it)
        | CallArg::KwargSplat(it) => expression(it),
    })
}

/// What stands after `in`.
fn looked_into(it: &Expr<'_>) -> Result<(), TemplateError> {
    match it {
        Expr::List(list) if list.items.iter().all(|it| matches!(it, Expr::Const(_))) => Ok(()),
        other => expression(other),
    }
}
