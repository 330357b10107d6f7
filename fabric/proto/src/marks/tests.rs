use super::*;

#[test]
fn a_thread_counts_its_own_marks() {
    take();
    reached(Mark::FenceRefuses);
    reached(Mark::FenceRefuses);
    std::thread::spawn(|| reached(Mark::StoreLost)).join().unwrap();
    let mut sum = take();
    assert_eq!(sum.count(Mark::FenceRefuses), 2);
    assert_eq!(sum.never().len(), Mark::ALL.len() - 1);
    assert_eq!(take(), Reached::default(), "they begin anew");
    sum.add(&sum.clone());
    assert_eq!(sum.count(Mark::FenceRefuses), 4);
}
