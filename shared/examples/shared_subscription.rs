//! Shared subscription: three workers of a group, and each message goes to one of them.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_shared::session::{Channel, Publish, QoS, Stop, Subscription};
use support::{next, options, say, text};

const END: Duration = Duration::from_secs(2);
const WORKERS: usize = 3;
const JOBS: usize = 30;

async fn worker(number: usize) -> anyhow::Result<Channel> {
    let mut options = options(&format!("patterns-worker-{number}"))?;
    let filter = "$share/patterns/patterns/shared/jobs";
    options.subscriptions = vec![Subscription::new(filter, QoS::AtLeastOnce)];
    Ok(Channel::connect(options).await?)
}

#[actix::main]
async fn main() -> anyhow::Result<()> {
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        workers.push(worker(number).await?);
    }
    let publisher = Channel::connect(options("patterns-shared-publisher")?).await?;
    for job in 0..JOBS {
        let payload = format!("job {job}").into_bytes();
        publisher
            .session
            .publish(Publish::new("patterns/shared/jobs", "patterns", payload))
            .await?;
    }
    let (mut done, mut shares) = (BTreeSet::new(), vec![0; WORKERS]);
    while done.len() < JOBS {
        // Whoever has one next; the broker decided which worker that is.
        let nexts = workers.iter_mut().map(|worker| Box::pin(next(worker)));
        let (message, number, _) = futures_util::future::select_all(nexts).await;
        anyhow::ensure!(done.insert(text(&message?)), "a job came twice");
        shares[number] += 1;
    }
    say(format_args!("{} jobs, each done once", done.len()));
    say(format_args!(
        "every worker had some: {}",
        shares.iter().all(|&share| share > 0)
    ));
    for worker in workers {
        worker.session.stop(Stop::EndSession, END).await;
    }
    publisher.session.stop(Stop::EndSession, END).await;
    Ok(())
}
