//! Nothing is lost when a new connection takes a session over.
//!
//! The library asks the old session's task to end, takes over what waits in it, and puts the new
//! one in its place. What is sent to the old one between its answer and that moment is lost without a
//! word, although its publisher is told that it was taken: one reading in some thousands, whenever a
//! subscriber that gets hundreds a second dies and comes back. Here who sends waits for that moment.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rmqtt::Result;
use rmqtt::codec::types::QoS;
use rmqtt::context::ServerContext;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType, Type};
use rmqtt::inflight::{MomentStatus, OutInflightMessage};
use rmqtt::session::Session;
use rmqtt::shared::{DefaultShared, Entry, MessageLoadCallback, RetainLoadCallback, Shared};
use rmqtt::types::{
    ClientId, ForwardedCount, ForwardedRecipients, From, Id, IsAdmin, Message, MsgID, NodeId,
    OfflineSession, Publish, Reason, SessionStatus, SharedGroup, SubRelations, SubRelationsMap,
    SubsSearchParams, SubsSearchResult, Subscribe, SubscribeReturn, To, TopicFilter, Tx,
    Unsubscribe,
};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

/// What a forward has done, or has not.
type Failed = Vec<(To, From, Publish, Reason)>;

/// Counts a message as under way before it is written. The library does so afterwards: one whose
/// writing fails, because the connection has just ended, would be neither here nor there.
struct UnderWay;

#[async_trait]
impl Handler for UnderWay {
    async fn hook(&self, question: &Parameter, so_far: Option<HookResult>) -> ReturnType {
        if let Parameter::MessageDelivered(session, from, publish) = question {
            let status = match publish.qos {
                QoS::AtMostOnce => return (true, so_far),
                QoS::AtLeastOnce => MomentStatus::UnAck,
                QoS::ExactlyOnce => MomentStatus::UnReceived,
            };
            let message = OutInflightMessage::new(status, from.clone(), (*publish).clone());
            // When it is written, the library puts it there once more, under the same identifier.
            session.out_inflight().write().await.push_back(message);
        }
        (true, so_far)
    }
}

/// For each session a lock: those who send to it share it, who takes it over has it alone.
#[derive(Clone, Default)]
struct Gates(Arc<Mutex<HashMap<ClientId, Arc<RwLock<()>>>>>);

impl Gates {
    fn of(&self, client_id: &ClientId) -> Arc<RwLock<()>> {
        let mut gates = self.lock();
        if let Some(gate) = gates.get(client_id) {
            return Arc::clone(gate);
        }
        let gate = Arc::<RwLock<()>>::default();
        gates.insert(client_id.clone(), Arc::clone(&gate));
        gate
    }

    /// Forgets the lock of a session that is gone, unless somebody holds it.
    fn forget(&self, client_id: &ClientId) {
        let mut gates = self.lock();
        if gates
            .get(client_id)
            .is_some_and(|gate| Arc::strong_count(gate) == 1)
        {
            gates.remove(client_id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClientId, Arc<RwLock<()>>>> {
        // A map is whole between any two of its operations.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The library's sessions, which nothing is sent to while they are taken over.
pub(super) struct Handover {
    inner: DefaultShared,
    context: ServerContext,
    gates: Gates,
}

impl Handover {
    /// Puts itself in the place of the library's own.
    pub(super) async fn install(context: &ServerContext) {
        let handover = Self {
            inner: DefaultShared::new(Some(context.clone())),
            context: context.clone(),
            gates: Gates::default(),
        };
        *context.extends.shared_mut().await = Box::new(handover);
        let register = context.extends.hook_mgr().register();
        register
            .add(Type::MessageDelivered, Box::new(UnderWay))
            .await;
        register.start().await;
    }

    fn wrap(&self, inner: Box<dyn Entry>) -> Box<dyn Entry> {
        Box::new(Held::new(inner, &self.gates))
    }

    /// Sends to each of `relations`, once nobody takes it over.
    async fn send(
        &self,
        from: &From,
        publish: &Publish,
        relations: SubRelations,
    ) -> (ForwardedRecipients, Failed) {
        let (mut reached, mut failed) = (Vec::new(), Vec::new());
        for relation in relations {
            let client_id = relation.1.clone();
            let gate = self.gates.of(&client_id);
            // A session that sends to itself while it is taken over must not wait for that: who takes
            // over waits for the session.
            let _shared = match client_id == from.client_id {
                true => None,
                false => Some(gate.read().await),
            };
            let sent = self
                .inner
                .forwards_to(from.clone(), publish, vec![relation], None);
            match sent.await {
                Ok(recipients) => reached.extend(recipients),
                Err((recipients, errors)) => {
                    reached.extend(recipients);
                    failed.extend(errors);
                }
            }
        }
        (reached, failed)
    }
}

#[async_trait]
impl Shared for Handover {
    fn entry(&self, id: Id) -> Box<dyn Entry> {
        self.wrap(self.inner.entry(id))
    }

    fn exist(&self, client_id: &str) -> bool {
        self.inner.exist(client_id)
    }

    async fn forwards(
        &self,
        msg_id: Option<MsgID>,
        from: From,
        publish: Publish,
    ) -> std::result::Result<ForwardedCount, (ForwardedCount, Failed)> {
        if publish.target_clientid.is_some() {
            // Of the library's own interfaces only; no client can ask for it.
            return self.inner.forwards(msg_id, from, publish).await;
        }
        let router = self.context.extends.router().await;
        let matched = router.matches(from.id.clone(), &publish.topic).await;
        drop(router);
        let mut matched = matched.unwrap_or_else(|error| {
            tracing::error!(%error, topic = %publish.topic, "no subscriptions are found");
            SubRelationsMap::default()
        });
        let node = self.context.node.id();
        let relations = matched.remove(&node).unwrap_or_default();
        let (reached, failed) = self.send(&from, &publish, relations).await;
        let count = reached.len();
        if let Some(msg_id) = msg_id
            && !reached.is_empty()
        {
            let marked = self.inner.message_mark_forwarded(node, msg_id, reached);
            if let Err(error) = marked.await {
                tracing::warn!(%error, "a message is not marked as sent");
            }
        }
        match failed.is_empty() {
            true => Ok(count),
            false => Err((count, failed)),
        }
    }

    async fn forwards_and_get_shareds(
        &self,
        from: From,
        publish: Publish,
    ) -> std::result::Result<(SubRelationsMap, ForwardedRecipients), (ForwardedRecipients, Failed)>
    {
        // Asked for by other nodes of a cluster, which there are none of.
        self.inner.forwards_and_get_shareds(from, publish).await
    }

    async fn forwards_to(
        &self,
        from: From,
        publish: &Publish,
        relations: SubRelations,
        _: Option<MsgID>,
    ) -> std::result::Result<ForwardedRecipients, (ForwardedRecipients, Failed)> {
        let (reached, failed) = self.send(&from, publish, relations).await;
        match failed.is_empty() {
            true => Ok(reached),
            false => Err((reached, failed)),
        }
    }

    fn iter(&self) -> Box<dyn Iterator<Item = Box<dyn Entry>> + Sync + Send + '_> {
        Box::new(self.inner.iter().map(|entry| self.wrap(entry)))
    }

    fn random_session(&self) -> Option<Session> {
        self.inner.random_session()
    }

    async fn session_status(&self, client_id: &str) -> Option<SessionStatus> {
        self.inner.session_status(client_id).await
    }

    async fn client_states_count(&self) -> usize {
        self.inner.client_states_count().await
    }

    fn sessions_count(&self) -> usize {
        self.inner.sessions_count()
    }

    async fn query_subscriptions(&self, asked: &SubsSearchParams) -> Vec<SubsSearchResult> {
        self.inner.query_subscriptions(asked).await
    }

    async fn subscriptions_count(&self) -> usize {
        self.inner.subscriptions_count().await
    }

    async fn message_load(
        &self,
        client_id: &str,
        topic_filter: &str,
        group: Option<&SharedGroup>,
    ) -> Result<Vec<(MsgID, From, Publish)>> {
        self.inner
            .message_load(client_id, topic_filter, group)
            .await
    }

    async fn message_load_with(
        &self,
        client_id: &str,
        topic_filter: &str,
        group: Option<&SharedGroup>,
        callback: Arc<dyn MessageLoadCallback>,
    ) -> Result<()> {
        let load = self
            .inner
            .message_load_with(client_id, topic_filter, group, callback);
        load.await
    }

    async fn retain_load_with(
        &self,
        topic_filter: &TopicFilter,
        callback: Arc<dyn RetainLoadCallback>,
    ) -> Result<Vec<(NodeId, MsgID)>> {
        self.inner.retain_load_with(topic_filter, callback).await
    }

    async fn message_mark_forwarded(
        &self,
        from_node_id: NodeId,
        msg_id: MsgID,
        recipients: ForwardedRecipients,
    ) -> Result<()> {
        let mark = self
            .inner
            .message_mark_forwarded(from_node_id, msg_id, recipients);
        mark.await
    }
}

/// A session that may be taken over.
struct Held {
    inner: Box<dyn Entry>,
    gates: Gates,
    /// Held from before the old session is asked to end until this is dropped, when the new one has been
    /// given what waited for the old one: what is sent before that takes its packet identifiers.
    alone: Option<OwnedRwLockWriteGuard<()>>,
    /// What the old session had sent without an answer, and what waited in it.
    waiting: Waiting,
}

impl Held {
    fn new(inner: Box<dyn Entry>, gates: &Gates) -> Self {
        Self {
            inner,
            gates: gates.clone(),
            alone: None,
            waiting: Waiting::default(),
        }
    }
}

/// Messages on their way from a session to the one that takes it over. The library would pass them on
/// as one message to the new session's task, which is lost if its connection ends before that is read.
#[derive(Default)]
struct Waiting {
    under_way: Vec<OutInflightMessage>,
    queued: VecDeque<(From, Publish)>,
}

impl Waiting {
    /// Puts them where the new session finds them when it begins, in their order.
    async fn pass_on(self, session: &Session, tx: &Tx) {
        let mut under_way = session.out_inflight().write().await;
        // Identifiers are given out in turn, so the next are free: after the last that is sent again.
        let sent = self.under_way.iter().map(|it| &it.publish);
        let again = self.queued.iter().map(|(_, publish)| publish);
        let identifiers = sent.chain(again).filter_map(|it| it.packet_id);
        if let Some(last) = identifiers.last()
            && last.get() < u16::MAX
        {
            under_way.advance_next_id(last.get());
        }
        let queue = session.deliver_queue();
        let mut refused = 0;
        for mut message in self.under_way {
            if message.status == MomentStatus::UnComplete {
                under_way.push_back(message.clone());
                // An error says that the connection has ended: it is asked for again with the next.
                tx.unbounded_send(Message::SendRerelease(message)).ok();
                continue;
            }
            message.publish.dup = true;
            refused += usize::from(queue.push((message.from, message.publish)).is_err());
        }
        for message in self.queued {
            refused += usize::from(queue.push(message).is_err());
        }
        if refused > 0 {
            tracing::error!(client_id = %session.id.client_id, refused, "more waits for a session than its queue takes");
        }
    }
}

#[async_trait]
impl Entry for Held {
    async fn try_lock(&self) -> Result<Box<dyn Entry>> {
        let locked = self.inner.try_lock().await?;
        Ok(Box::new(Self::new(locked, &self.gates)))
    }

    fn id(&self) -> Id {
        self.inner.id()
    }

    fn id_same(&self) -> Option<bool> {
        self.inner.id_same()
    }

    async fn set(&mut self, session: Session, tx: Tx) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.pass_on(&session, &tx).await;
        self.inner.set(session, tx).await
    }

    async fn remove(&mut self) -> Result<Option<(Session, Tx)>> {
        let removed = self.inner.remove().await;
        self.gates.forget(&self.id().client_id);
        removed
    }

    async fn remove_with(&mut self, id: &Id) -> Result<Option<(Session, Tx)>> {
        let removed = self.inner.remove_with(id).await;
        self.gates.forget(&self.id().client_id);
        removed
    }

    async fn kick(
        &mut self,
        clean_start: bool,
        clear_subscriptions: bool,
        is_admin: IsAdmin,
    ) -> Result<OfflineSession> {
        // What was sent before is before the request to end in the session's queue.
        let gate = self.gates.of(&self.id().client_id);
        self.alone = Some(gate.write_owned().await);
        let old = self.inner.kick(clean_start, clear_subscriptions, is_admin);
        let mut old = old.await?;
        if let OfflineSession::Exist(Some(info)) = &mut old {
            self.waiting = Waiting {
                under_way: std::mem::take(&mut info.inflight_messages),
                queued: std::mem::take(&mut info.offline_messages),
            };
        }
        Ok(old)
    }

    async fn online(&self) -> bool {
        self.inner.online().await
    }

    async fn is_connected(&self) -> bool {
        self.inner.is_connected().await
    }

    fn session(&self) -> Option<Session> {
        self.inner.session()
    }

    fn exist(&self) -> bool {
        self.inner.exist()
    }

    fn tx(&self) -> Option<Tx> {
        self.inner.tx()
    }

    async fn subscribe(&self, subscribe: &Subscribe) -> Result<SubscribeReturn> {
        self.inner.subscribe(subscribe).await
    }

    async fn unsubscribe(&self, unsubscribe: &Unsubscribe) -> Result<bool> {
        self.inner.unsubscribe(unsubscribe).await
    }

    async fn publish(
        &self,
        from: From,
        publish: Publish,
    ) -> std::result::Result<(), (From, Publish, Reason)> {
        self.inner.publish(from, publish).await
    }

    async fn subscriptions(&self) -> Option<Vec<SubsSearchResult>> {
        self.inner.subscriptions().await
    }
}
