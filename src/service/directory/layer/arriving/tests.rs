use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures::stream;
use tokio::sync::mpsc;

use super::*;
use crate::service::{
    directory::{backend::MemoryDirectories, layer::LruDirectories},
    shelf::closure,
};

/// Answers closures as it is told to; single directories are always there.
#[derive(Debug)]
struct Scripted {
    closures: Mutex<Vec<mpsc::UnboundedReceiver<Result<Arc<Directory>>>>>,
    singles: MemoryDirectories,
    closures_asked: AtomicUsize,
    singles_asked: AtomicUsize,
}

#[async_trait]
impl DirectoryService for Scripted {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        self.singles_asked.fetch_add(1, SeqCst);
        self.singles.get(digest).await
    }

    fn get_local(&self, _: &Digest) -> Result<Option<Arc<Directory>>> {
        Ok(None)
    }

    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        self.closures_asked.fetch_add(1, SeqCst);
        if self.singles.get(root).await?.is_none() {
            return Ok(None);
        }
        let next = self.closures.lock().pop();
        let next = next.ok_or_else(|| Error::corrupt("test", "it has no more closures"))?;
        Ok(Some(Box::pin(stream::unfold(next, |mut next| async {
            next.recv().await.map(|directory| (directory, next))
        }))))
    }

    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        self.singles.put(directory).await
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        self.singles.put_closure().await
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}

type Feed = mpsc::UnboundedSender<Result<Arc<Directory>>>;

/// The layer over a store that answers `N` closures, each fed by the test; it also has each directory of [`closure`].
async fn layer<const N: usize>() -> (ArrivingDirectories, Arc<Scripted>, [Feed; N]) {
    let (feeds, mut closures): (Vec<_>, Vec<_>) = (0..N).map(|_| mpsc::unbounded_channel()).unzip();
    closures.reverse();
    let singles = MemoryDirectories::new();
    for directory in closure("x", SizeRule::Documented) {
        singles.put(directory).await.expect("works");
    }
    let scripted = Arc::new(Scripted {
        closures: Mutex::new(closures),
        singles,
        closures_asked: AtomicUsize::new(0),
        singles_asked: AtomicUsize::new(0),
    });
    let kept = Arc::new(LruDirectories::new(scripted.clone(), 1 << 20));
    let feeds = feeds.try_into().expect("as many");
    (ArrivingDirectories::new(kept), scripted, feeds)
}

fn asked(scripted: &Scripted) -> (usize, usize) {
    (scripted.closures_asked.load(SeqCst), scripted.singles_asked.load(SeqCst))
}

#[tokio::test(start_paused = true)]
async fn each_directory_is_there_as_soon_as_it_arrives_and_asked_for_once() {
    let (layer, scripted, [feed]) = layer().await;
    let [leaf, middle, root] = closure("x", SizeRule::Documented);
    feed.send(Ok(root.clone())).expect("listens");
    assert_eq!(layer.get(&root.digest()).await.expect("works"), Some(root));
    let (middle_digest, leaf_digest) = (middle.digest(), leaf.digest());
    let waits = async { layer.get(&middle_digest).await.expect("works") };
    let feeds = async {
        tokio::task::yield_now().await;
        feed.send(Ok(middle.clone())).expect("listens");
    };
    let (got, ()) = tokio::join!(waits, feeds);
    assert_eq!(got, Some(middle));
    // Whoever waits may go.
    let given_up = tokio::time::timeout(WAIT_MAX / 2, layer.get(&leaf_digest)).await;
    assert!(given_up.is_err());
    feed.send(Ok(leaf.clone())).expect("listens");
    drop(feed);
    tokio::task::yield_now().await;
    assert_eq!(layer.get(&leaf_digest).await.expect("works"), Some(leaf));
    assert_eq!(asked(&scripted), (1, 0));
    let arriving = layer.shared.arriving.lock();
    assert_eq!((arriving.flights, arriving.expected.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_comes_late_is_asked_for_alone() {
    let (layer, scripted, [feed]) = layer().await;
    let [_, middle, root] = closure("x", SizeRule::Documented);
    feed.send(Ok(root.clone())).expect("listens");
    layer.get(&root.digest()).await.expect("works").expect("came");
    assert_eq!(layer.get(&middle.digest()).await.expect("works"), Some(middle));
    assert_eq!(asked(&scripted), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_is_cut_off_is_asked_for_again_and_goes_on() {
    let (layer, scripted, [first, second]) = layer().await;
    let [leaf, middle, root] = closure("x", SizeRule::Documented);
    first.send(Ok(root.clone())).expect("listens");
    layer.get(&root.digest()).await.expect("works").expect("came");
    first.send(Err(Error::unavailable("test", "cut"))).expect("listens");
    for directory in [&root, &middle, &leaf] {
        second.send(Ok(directory.clone())).expect("listens");
    }
    assert_eq!(layer.get(&leaf.digest()).await.expect("works"), Some(leaf));
    assert_eq!(layer.get(&middle.digest()).await.expect("works"), Some(middle));
    assert_eq!(asked(&scripted), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_error_is_told_to_all_who_wait_and_not_remembered() {
    let (layer, scripted, [first, second]) = layer().await;
    let [_, _, root] = closure("x", SizeRule::Documented);
    first.send(Err(Error::unavailable("test", "down"))).expect("listens");
    let digest = root.digest();
    let (one, other) = tokio::join!(layer.get(&digest), layer.get(&digest));
    assert!(matches!(one, Err(Error::Unavailable { .. })), "{one:?}");
    assert!(matches!(other, Err(Error::Unavailable { .. })), "{other:?}");
    second.send(Ok(root.clone())).expect("listens");
    assert_eq!(layer.get(&digest).await.expect("healed"), Some(root));
    assert_eq!(asked(&scripted), (2, 0));
    let absent = Digest::of(b"absent");
    assert_eq!(layer.get(&absent).await.expect("works"), None);
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_lacks_a_directory_harms_no_other() {
    let (layer, scripted, [feed]) = layer().await;
    let [leaf, middle, root] = closure("x", SizeRule::Documented);
    feed.send(Ok(root.clone())).expect("listens");
    layer.get(&root.digest()).await.expect("works").expect("came");
    feed.send(Err(Error::corrupt("test", "cut short"))).expect("listens");
    assert_eq!(layer.get(&middle.digest()).await.expect("alone"), Some(middle));
    assert_eq!(layer.get(&leaf.digest()).await.expect("alone"), Some(leaf));
    assert_eq!(asked(&scripted).1, 2);
}
