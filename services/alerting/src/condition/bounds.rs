//! What a condition may cost: how long it is, how deep its parts lie in each other, and how often it
//! goes through a list.
//!
//! CEL's parser and evaluator call themselves for each part, so what nests without a bound ends the
//! process; and a condition that goes through lists within lists may take longer than anybody waits.

use cel::IdedExpr;
use cel::common::ast::Expr;

/// Longest text of a condition in bytes.
pub(super) const SOURCE_BYTES_MAX: usize = 4_096;

/// Parts within parts at most. A chain such as `a + b + c` is as deep as it has links; those of `&&`
/// and `||` are put together as a tree and are not.
pub(super) const DEPTH_MAX: usize = 24;

/// How often a condition may go through a list, with `exists`, `all`, `map` and the like.
pub(super) const COMPREHENSIONS_MAX: usize = 8;

/// Looks whether `root` is within the bounds.
///
/// # Errors
/// The number of the part that is not, and what to do.
pub(super) fn check(root: &IdedExpr) -> Result<(), (u64, String)> {
    let mut comprehensions = 0;
    // A list of what is left, for what it looks for is what must not be walked by recursion.
    let mut left = vec![(root, 1, false)];
    while let Some((node, depth, repeated)) = left.pop() {
        if depth > DEPTH_MAX {
            return Err((
                node.id,
                format!(
                    "its parts lie in each other more than {DEPTH_MAX} deep: make it two rules"
                ),
            ));
        }
        let mut push = |node, repeated| left.push((node, depth + 1, repeated));
        match &node.expr {
            Expr::Call(call) => {
                if let Some(target) = &call.target {
                    push(target, repeated);
                }
                call.args.iter().for_each(|it| push(it, repeated));
            }
            Expr::Select(select) => push(&select.operand, repeated),
            Expr::List(list) => list.elements.iter().for_each(|it| push(it, repeated)),
            Expr::Comprehension(comprehension) => {
                comprehensions += 1;
                if repeated || comprehensions > COMPREHENSIONS_MAX {
                    return Err((
                        node.id,
                        format!(
                            "it goes through a list within a list, or through more than \
                             {COMPREHENSIONS_MAX}: write out what it looks for"
                        ),
                    ));
                }
                push(&comprehension.iter_range, repeated);
                push(&comprehension.accu_init, true);
                push(&comprehension.loop_cond, true);
                push(&comprehension.loop_step, true);
                push(&comprehension.result, true);
            }
            // A condition has no use for maps, which its reader says.
            Expr::Map(_) | Expr::Struct(_) => {}
            Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
        }
    }
    Ok(())
}
