//! One trace of several processes.

use super::format::{Event, Trace};
use super::import::Process;

/// A thread of the whole, in which processes follow each other.
#[derive(Default)]
struct Lane {
    events: Vec<Event>,
    /// When the process that uses it ends.
    free_at: u64,
    /// What that process allocated in it and never released.
    left: Vec<u64>,
}

/// One trace of all: no two processes share an object. Nor do they share a thread, except that a process that began when
/// others had ended goes on in their threads. What those had not released is released before, as their end did.
pub fn merge(mut parts: Vec<(Process, Trace)>) -> Trace {
    parts.sort_by_key(|(process, _)| process.began);
    let processes: Vec<_> = parts.iter().map(|(process, _)| process.clone()).collect();
    let mut lanes: Vec<Lane> = Vec::new();
    let mut objects = 0;
    for (place, (process, trace)) in parts.into_iter().enumerate() {
        // One that executed another program ended when that began. Older recordings have no ids.
        let later = processes[place + 1..].iter().filter(|next| next.id == process.id && next.id != 0);
        let next = later.map(|next| next.began).next();
        let free_at = process.ended.or(next).unwrap_or(u64::MAX);
        let free = |(_, lane): &(usize, &Lane)| lane.free_at <= process.began;
        let mut free: Vec<_> = lanes.iter().enumerate().filter(free).map(|(number, _)| number).collect();
        free.reverse();
        let mut unreleased = vec![true; trace.objects as usize];
        for event in trace.threads.iter().flatten() {
            if let Event::Free(object) = event {
                unreleased[*object as usize] = false;
            }
        }
        for events in trace.threads {
            let number = free.pop().unwrap_or(lanes.len());
            if number == lanes.len() {
                lanes.push(Lane::default());
            }
            let lane = &mut lanes[number];
            lane.free_at = free_at;
            lane.events.extend(lane.left.drain(..).map(Event::Free));
            for event in events {
                lane.events.push(match event {
                    Event::Allocate(object, size) => {
                        if unreleased[object as usize] {
                            lane.left.push(objects + object);
                        }
                        Event::Allocate(objects + object, size)
                    }
                    Event::Free(object) => Event::Free(objects + object),
                });
            }
        }
        objects += trace.objects;
    }
    Trace { synthetic: false, objects, threads: lanes.into_iter().map(|lane| lane.events).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Event::{Allocate, Free};

    fn process(id: u64, began: u64, ended: Option<u64>) -> Process {
        Process { name: String::new(), id, began, ended }
    }

    fn trace(threads: &[&[Event]]) -> Trace {
        let objects =
            threads.iter().flat_map(|events| events.iter()).filter(|event| matches!(event, Allocate(..))).count();
        Trace {
            synthetic: false,
            objects: objects as u64,
            threads: threads.iter().map(|events| events.to_vec()).collect(),
        }
    }

    #[test]
    fn processes_side_by_side_have_their_own_threads_and_objects() {
        let one = trace(&[&[Allocate(0, 8), Free(0)], &[Allocate(1, 16)]]);
        let two = trace(&[&[Allocate(0, 24)]]);
        // Not in the order in which they began.
        let whole = merge(vec![(process(2, 20, Some(90)), two), (process(1, 10, Some(30)), one)]);
        assert_eq!(whole.threads, [vec![Allocate(0, 8), Free(0)], vec![Allocate(1, 16)], vec![Allocate(2, 24)]]);
        assert_eq!(whole.objects, 3);
        whole.check().unwrap();
    }

    #[test]
    fn a_process_that_follows_goes_on_in_the_threads_of_those_that_ended() {
        let parts = [
            (process(1, 10, Some(20)), trace(&[&[Allocate(0, 8), Allocate(1, 9), Free(0)], &[Allocate(2, 7)]])),
            (process(2, 15, None), trace(&[&[Allocate(0, 1)]])),
            (process(3, 20, Some(40)), trace(&[&[Allocate(0, 5)]])),
            // The second process executed another program.
            (process(2, 30, Some(50)), trace(&[&[Allocate(0, 2)], &[Free(1), Allocate(2, 3)], &[Allocate(1, 4)]])),
        ];
        let whole = merge(parts.into());
        let expected = [
            vec![Allocate(0, 8), Allocate(1, 9), Free(0), Free(1), Allocate(4, 5)],
            vec![Allocate(2, 7), Free(2), Allocate(5, 2)],
            vec![Allocate(3, 1), Free(3), Free(6), Allocate(7, 3)],
            vec![Allocate(6, 4)],
        ];
        assert_eq!(whole.threads, expected);
        whole.check().unwrap();
    }

    #[test]
    fn without_times_all_are_side_by_side() {
        let part = || (Process::default(), trace(&[&[Allocate(0, 8)]]));
        assert_eq!(merge(vec![part(), part()]).threads.len(), 2);
    }
}
