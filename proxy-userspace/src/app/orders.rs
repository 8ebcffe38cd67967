//! What workers are told while they serve. Each does it at once, on its own thread, and says so.

use std::net::TcpListener;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::worker::Plan;

/// Orders that may wait at a worker.
pub(super) const ORDERS: usize = 16;

/// How long a worker may take for one. One that is stuck has others worry about it.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) enum Order {
    /// To serve by this plan what comes from now on.
    Follow(Box<Plan>, oneshot::Sender<()>),
    /// To accept from these as well, as long as they are wanted.
    Open(Vec<TcpListener>, watch::Receiver<bool>, oneshot::Sender<()>),
}

/// A way to each worker.
#[derive(Clone)]
pub(super) struct Orders(pub(super) Vec<mpsc::Sender<Order>>);

impl Orders {
    /// Waits until all serve by the plan.
    pub(super) async fn follow(&self, plan: &Plan) {
        let orders = self.0.iter().map(|_| |done| Order::Follow(Box::new(plan.clone()), done));
        self.tell(orders).await;
    }

    /// Waits until all accept; there is a group of listeners for each.
    pub(super) async fn open(&self, groups: Vec<Vec<TcpListener>>, door: &watch::Receiver<bool>) {
        let orders = groups.into_iter().map(|group| |done| Order::Open(group, door.clone(), done));
        self.tell(orders).await;
    }

    async fn tell<O: FnOnce(oneshot::Sender<()>) -> Order>(&self, orders: impl Iterator<Item = O>) {
        let mut answers = Vec::new();
        for (worker, order) in self.0.iter().zip(orders) {
            let (done, answer) = oneshot::channel();
            // An error means that it has ended, with which weir ends.
            let _ = timeout(PATIENCE, worker.send(order(done))).await;
            answers.push(answer);
        }
        for answer in answers {
            if timeout(PATIENCE, answer).await.is_err() {
                tracing::error!(
                    "a worker does not do what it is told; `weir status` tells whether it is stuck"
                );
            }
        }
    }
}
