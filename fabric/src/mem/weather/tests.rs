//! Each fate of a frame, as the two ends of a connection see it.

use parking_lot::Mutex as Lock;
use tokio::time::timeout;

use super::*;
use crate::{
    SharedBuf, Tuning,
    counters::Counters,
    frame::{Header, Kind, Limits, encode_message},
    mem::{self, Listener},
    pulse::Pulse,
    transport::{self, Frame},
};

/// The same fate for every frame, until it is changed.
#[derive(Debug)]
struct Steady(Lock<Fate>);

impl Weather for Steady {
    fn connecting(&self, line: &Line) -> Fate {
        assert_eq!(line.client(), "me");
        Fate::Arrives(Duration::ZERO)
    }

    fn frame(&self, _line: &Line, _way: Way, _bytes: usize) -> Fate {
        *self.0.lock()
    }
}

struct Ends {
    weather: Arc<Steady>,
    sender: transport::Sender,
    receiver: transport::Receiver,
    _other_half: (transport::Sender, transport::Receiver),
    _guard: WeatherGuard,
}

/// Both ends of a connection, of which the client's sends and the server's receives.
async fn ends(name: &str) -> Ends {
    let weather = Arc::new(Steady(Lock::new(Fate::Arrives(Duration::ZERO))));
    let guard = set_weather(name, weather.clone());
    let mut listener = Listener::bind(name).unwrap();
    let pulse = Pulse::new(Tuning::default(), Counters::new());
    let client = mem::connect(&format!("{name}#me")).await.unwrap();
    let server = listener.accept().await.unwrap();
    let ((sender, from_server), (to_client, mut receiver)) =
        (client.split(&pulse), server.split(&pulse));
    receiver.open(Limits::AUTHENTICATED, 0);
    Ends { weather, sender, receiver, _other_half: (to_client, from_server), _guard: guard }
}

fn frame(id: u64, bulk: usize) -> Frame {
    let head = encode_message(&ff2_proto::pb::SpaceRequest {});
    let bulk = vec![SharedBuf::from(vec![7; bulk])];
    Frame::new(Header::new(Kind::Request, id, 0), head, bulk)
}

const SOON: Duration = Duration::from_millis(20);
const LATER: Duration = Duration::from_millis(200);

#[tokio::test(start_paused = true)]
async fn a_late_frame_keeps_the_next_one_behind_it() {
    let mut ends = ends("weather-late").await;
    *ends.weather.0.lock() = Fate::Arrives(LATER);
    ends.sender.send(&mut [frame(1, 0)]).await.unwrap();
    *ends.weather.0.lock() = Fate::Arrives(Duration::ZERO);
    let sent = Instant::now();
    ends.sender.send(&mut [frame(2, 0)]).await.unwrap();
    for id in [1, 2] {
        assert_eq!(ends.receiver.head().await.unwrap().header.id, id);
        assert!(sent.elapsed() >= LATER);
    }
    drop(ends.sender);
    assert!(matches!(ends.receiver.head().await, Err(LinkError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn behind_a_held_frame_nothing_arrives_not_even_the_end() {
    let mut ends = ends("weather-held").await;
    *ends.weather.0.lock() = Fate::Held;
    ends.sender.send(&mut [frame(1, 0)]).await.unwrap();
    *ends.weather.0.lock() = Fate::Arrives(Duration::ZERO);
    ends.sender.send(&mut [frame(2, 0)]).await.unwrap();
    drop(ends.sender);
    assert!(timeout(SOON, ends.receiver.head()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn of_a_break_both_ends_are_told() {
    let mut ends = ends("weather-cut").await;
    *ends.weather.0.lock() = Fate::Cut;
    assert!(matches!(ends.sender.send(&mut [frame(1, 0)]).await, Err(LinkError::Io(_))));
    assert!(matches!(ends.receiver.head().await, Err(LinkError::Io(_))));
}

#[tokio::test(start_paused = true)]
async fn a_torn_frame_ends_within_its_bulk_bytes() {
    let mut ends = ends("weather-torn").await;
    *ends.weather.0.lock() = Fate::Torn;
    ends.sender.send(&mut [frame(1, 100)]).await.unwrap();
    assert_eq!(ends.receiver.head().await.unwrap().header.bulk_bytes, 100);
    assert!(matches!(ends.receiver.bulk(&mut [0; 100]).await, Err(LinkError::Io(_))));
    assert!(matches!(ends.sender.send(&mut [frame(2, 0)]).await, Err(LinkError::Io(_))));
}
