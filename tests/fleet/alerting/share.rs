//! Groups that share the work, and sensors that move from one to the other.

use super::*;

/// A process of a group that looks at what is published under one place.
async fn start(scene: &Scene, group: &str, place: &str) -> Process {
    let mut process = scene
        .program(&format!("alerting-{group}"))
        .flag("--group", group)
        .flag("--filter", format!("sensors/{place}/#"))
        // The broker must forget the filter that the group had before.
        .env("MQTT_CLEAN_START", true)
        .start();
    process.ready(PATIENCE).await;
    process
}

#[actix::test]
async fn groups_share_the_work_and_each_answers_for_its_own_sensors() {
    let scene = Scene::new().await;
    let (lab, hall) = (
        start(&scene, "one", "lab").await,
        start(&scene, "two", "hall").await,
    );
    scene.reading_in("lab", "s1", 31.0).await;
    scene.reading_in("hall", "s2", 31.0).await;
    scene.told("firing s1").await;
    scene.told("firing s2").await;
    scene.reading_in("lab", "s1", 20.0).await;
    scene.reading_in("hall", "s2", 20.0).await;
    scene.told("resolved s1").await;
    scene.told("resolved s2").await;
    for process in [&lab, &hall] {
        let metrics = process.metrics().await.unwrap();
        let fired = metrics.sum("alerting_alerts_total", &[("state", "firing")]);
        assert_eq!(fired, 1.0, "each has the one that came to it");
    }
    assert_eq!(scene.alerts().len(), 4, "{:?}", scene.alerts());
}

/// The broker sends the messages of a sensor to another group while its alert fires: nobody is told
/// again, and the new group ends it.
#[actix::test]
async fn an_alert_moves_to_another_group_without_a_second_notification() {
    let scene = Scene::new().await;
    let mut one = start(&scene, "one", "lab").await;
    let mut two = start(&scene, "two", "hall").await;
    scene.reading_in("lab", "s1", 31.0).await;
    scene.reading_in("hall", "s2", 31.0).await;
    scene.told("firing s1").await;
    scene.told("firing s2").await;
    // Two dies as a process does, and its topics go to group one; one is drained.
    scene.settled().await;
    two.kill();
    one.terminate();
    assert_eq!(one.exit(PATIENCE).await, 0);
    let one = start(&scene, "one", "hall").await;
    let mut two = start(&scene, "two", "lab").await;
    for (place, sensor) in [("hall", "s2"), ("lab", "s1")] {
        scene.reading_in(place, sensor, 33.0).await;
        scene.reading_in(place, sensor, 30.0).await;
    }
    scene.barrier_in("lab").await;
    scene.barrier_in("hall").await;
    assert_eq!(scene.alerts_of("s1"), ["firing s1"]);
    assert_eq!(scene.alerts_of("s2"), ["firing s2"]);

    // It was noted whose it is now: that survives a kill too.
    scene.settled().await;
    two.kill();
    let two = start(&scene, "two", "lab").await;
    scene.reading_in("hall", "s2", 20.0).await;
    scene.reading_in("lab", "s1", 20.0).await;
    scene.told("resolved s1").await;
    scene.told("resolved s2").await;
    assert_eq!(scene.alerts_of("s1"), ["firing s1", "resolved s1"]);
    assert_eq!(scene.alerts_of("s2"), ["firing s2", "resolved s2"]);
    for process in [&one, &two] {
        let metrics = process.metrics().await.unwrap();
        let resolved = metrics.sum("alerting_alerts_total", &[("state", "resolved")]);
        assert_eq!(resolved, 1.0, "by the group that has it now");
    }
}
