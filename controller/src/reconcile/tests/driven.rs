//! What is decided, as it is carried out.

use std::{sync::Arc, time::Duration};

use ferrolb_runtime::events::Events;
use tokio::sync::{Semaphore, mpsc};

use super::*;
use crate::act::{
    Writer, drive,
    tests::{arrivals, asked_for, gated},
};

/// Input: more Services than are written at once, to an API server that lets none through at first; meanwhile one of those that
/// wait asks for another address, one is deleted, and one that is being written asks for another as well.
/// Output: the first is written once, with what it asks for now, and the second not at all; the third is written again in the end.
#[tokio::test(start_paused = true)]
async fn what_waits_for_its_turn_is_written_as_it_is_wanted_then() {
    const ALL: u8 = 40;
    let mut bench = Bench::started("10.0.0.0/24");
    let gate = Arc::new(Semaphore::new(0));
    let (client, mut arrived) = gated(&gate);
    let (inputs, queue) = mpsc::channel(1024);
    let writer = Writer::new(client.clone(), inputs.clone());
    let (events, nobody_writes_them) =
        Events::new(client, "metallb-controller", None, &Registry::new()).unwrap();
    let service = |number: u8| format!("s{number}");
    let first: Vec<_> = (0..ALL)
        .map(|number| bench.applied(&service(number), &[], &[&format!("10.0.0.{number}")]))
        .collect();
    let then = [
        bench.applied("s35", &[], &["10.0.0.135"]),
        Input::Service(Change::Deleted(name("s36"))),
        bench.applied("s3", &[], &["10.0.0.103"]),
    ];
    let driven = tokio::spawn(drive(bench.reconciler, queue, writer, events));
    for told in [first, then.into()] {
        for input in told {
            inputs.send(input).await.unwrap();
        }
        // Time stands still until nothing else can be done.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    gate.add_permits(1000);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let expected = (0..ALL).filter(|number| *number != 36).map(|number| {
        let last = if number == 35 { 135 } else { number };
        asked_for(number.into(), &format!("10.0.0.{last}"))
    });
    let mut expected: Vec<_> = expected.collect();
    expected.push(asked_for(3, "10.0.0.103"));
    assert_eq!(arrivals(&mut arrived), expected);
    driven.abort();
    drop(nobody_writes_them);
}
