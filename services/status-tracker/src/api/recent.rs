//! An answer that many ask for and that is dear to whoever gives it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::problem::Problem;

/// An answer is told again for so long, and so is that there was none.
const FRESH: Duration = Duration::from_secs(1);

/// Asks for an answer once, however many want it: one request is under way at a time, and who comes
/// meanwhile is told the same.
#[derive(Debug)]
pub(super) struct Recent<T>(Arc<Mutex<Option<Told<T>>>>);

#[derive(Debug)]
struct Told<T> {
    at: Instant,
    answer: Result<Arc<T>, Problem>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: 'static> Recent<T> {
    /// The answer if it is fresh, else what `asking` gives.
    pub(super) async fn get(
        &self,
        asking: impl Future<Output = Result<T, Problem>> + 'static,
    ) -> Result<Arc<T>, Problem> {
        let mut told = self.0.clone().lock_owned().await;
        if let Some(last) = &*told
            && last.at.elapsed() < FRESH
        {
            return last.answer.clone();
        }
        // Goes on when the client has gone: one that hangs up at once would cause many otherwise.
        let asking = actix_web::rt::spawn(async move {
            let answer = asking.await.map(Arc::new);
            *told = Some(Told {
                at: Instant::now(),
                answer: answer.clone(),
            });
            answer
        });
        asking.await.map_err(|_| Problem::stopping())?
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;

    #[actix::test]
    async fn many_that_ask_at_once_cause_one_request_a_second() {
        tokio::time::pause();
        let (recent, asked) = (Recent::default(), Rc::new(Cell::new(0)));
        let get = || {
            let asked = asked.clone();
            recent.get(async move {
                asked.set(asked.get() + 1);
                tokio::time::sleep(Duration::from_millis(100)).await;
                match asked.get() {
                    2 => Err(Problem::stopping()),
                    number => Ok(number),
                }
            })
        };
        // The first hangs up; what it asked for is told to the others.
        assert!(get().now_or_never().is_none());
        for answer in join_all((0..100).map(|_| get())).await {
            assert_eq!(*answer.unwrap(), 1);
        }
        tokio::time::advance(FRESH).await;
        for answer in join_all((0..100).map(|_| get())).await {
            assert!(answer.is_err());
        }
        assert_eq!(asked.get(), 2);
        tokio::time::advance(FRESH).await;
        assert_eq!(*get().await.unwrap(), 3);
    }
}
