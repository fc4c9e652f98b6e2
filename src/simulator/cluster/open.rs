//! What a simulation does beside that of [`super`] if its length is open: it draws
//! requests as it needs them, passes marks, and stops where somebody wants to look.

use super::{
    OpenEnd, Recorder, RequestOutcome, RequestState, Simulation, SimulationTotals, state_of, totals,
};
use crate::number::narrow;
use crate::simulator::event::Event;
use crate::simulator::open_end::{Mark, Marks, Progress, Until};
use crate::simulator::replica::ReplicaEnd;
use crate::workload::RequestStream;

impl OpenEnd {
    pub(super) fn new(stream: RequestStream) -> Self {
        let nothing = Until {
            ended: 0,
            arrived: 0,
            rejects: false,
        };
        Self {
            stream,
            marks: Marks::default(),
            until: nothing,
            left: 0,
            first_rejected: None,
        }
    }

    /// A request has ended; whether the run is to be looked at for that.
    #[inline]
    pub(super) fn has_ended(&mut self, id: u32, outcome: RequestOutcome) -> bool {
        let counts = id < self.until.ended;
        self.left -= u32::from(counts);
        let is_rejected = outcome.is_rejected();
        if is_rejected {
            // They are turned away as they arrive, so in order.
            self.first_rejected.get_or_insert(id);
        }
        (counts && self.left == 0) || (self.until.rejects && is_rejected)
    }
}

impl<R: Recorder> Simulation<'_, R> {
    /// Draws requests if there are more, and none is left to arrive.
    #[inline]
    pub(super) fn draw_if_needed(&mut self) {
        if self.next_request == self.shared.requests.len() {
            self.draw();
        }
    }

    #[cold]
    fn draw(&mut self) {
        let Some(open_end) = &mut self.open_end else {
            return;
        };
        let (cluster, requests) = (self.shared.cluster, &mut self.shared.requests);
        let is_closed_loop = self.closed_loop;
        open_end.stream.take_more(|request| {
            let id = narrow::<u32, _>(requests.len());
            let mut state = state_of(cluster, id, request);
            if is_closed_loop {
                state.arrived_at_s = f64::NAN;
            }
            requests.push(state);
        });
    }

    /// Goes on until the run is to be looked at again.
    pub(super) fn go_on(&mut self, until: Until) {
        if self.next_request == 0 {
            self.look_up_next_arrival();
        }
        let arrived = self.arrived();
        let goal = arrived.iter().take(until.ended as usize);
        let ended = goal.filter(|request| request.outcome.is_some()).count();
        if let Some(open_end) = &mut self.open_end {
            open_end.until = until;
            open_end.left = until.ended - narrow::<u32, _>(ended);
            self.is_due = open_end.left == 0;
        }
        if let Some((id, request)) = self.held_arrival.take() {
            self.handle(id, Event::Arrival { request });
        }
        self.is_over = !self.make_events();
        self.bring_all_up_to_date();
        self.tell_unfinished();
    }

    /// Requests that have arrived; one that is held has not.
    fn arrived(&self) -> &[RequestState] {
        let held = usize::from(self.held_arrival.is_some());
        &self.shared.requests[..self.next_request - held]
    }

    /// The run so far.
    pub(super) fn progress(&self) -> Progress<'_> {
        let open_end = self.open_end.as_ref();
        let marks = open_end.map(|open_end| &open_end.marks.list);
        Progress {
            now_s: self.events.now_s(),
            is_over: self.is_over,
            // Before the first look nobody was waited for.
            has_ended: open_end.is_some_and(|open| open.until.ended > 0 && open.left == 0),
            first_rejected: open_end.and_then(|open| open.first_rejected),
            totals: self.totals_so_far(),
            marks: marks.map_or(&[], Vec::as_slice),
            requests: self.arrived(),
        }
    }

    /// `request` is about to arrive before which a mark stands.
    #[cold]
    pub(super) fn mark(&mut self, request: u32) {
        self.bring_all_up_to_date();
        let (at_s, totals) = (self.events.now_s(), self.totals_so_far());
        let Some(open_end) = &mut self.open_end else {
            return;
        };
        self.shared.recorder.mark_passed();
        let merged = open_end.marks.add(Mark {
            request,
            at_s,
            totals,
        });
        if merged {
            self.shared.recorder.segments_merged();
        }
        self.next_mark = open_end.marks.next();
        self.is_due |= request >= open_end.until.arrived;
    }

    /// What has been done.
    fn totals_so_far(&self) -> SimulationTotals {
        let now_s = self.events.now_s();
        let replicas = self.replicas.iter();
        let replicas = replicas.map(|replica| ReplicaEnd::so_far(replica, now_s));
        totals(self.routers.len(), 1, now_s, replicas)
    }

    /// Makes happen what has been forecast up to the present.
    fn bring_all_up_to_date(&mut self) {
        for replica in 0..narrow::<u32, _>(self.replicas.len()) {
            self.bring_up_to_date(replica);
        }
    }

    /// Ends what has not ended when the run does.
    pub(super) fn end_open(&mut self) {
        let arrived = self.arrived().len();
        self.shared.requests.truncate(arrived);
        self.close_rest(match self.past_limit {
            true => RequestOutcome::UnfinishedTimeLimit,
            false => RequestOutcome::UnfinishedEndOfRun,
        });
    }
}
