use std::fs;

use super::*;
use crate::notify::text::{render, sample};
use crate::route::{Channel, Routes};

const RECEIVERS: &str = "receivers:
  - name: all
    webhook_configs: [{ url: 'http://h/hook', secret_file: DIR/whsec }]
    sms_configs: [{ api_url: 'http://t', account_sid: AC1, auth_token_file: DIR/token, from: '+4930111111', to: ['+4930222222'] }]
    call_configs: [{ api_url: 'http://t', account_sid: AC1, auth_token_file: DIR/token, from: '+4930111111', to: ['+4930222222'] }]
    slack_configs: [{ url_file: DIR/slack, channel: '#ops' }]
    ntfy_configs: [{ url: 'http://n', topic: fleet, token_file: DIR/token }]
    alertmanager_configs: [{ url: 'http://am:9093/' }]
";

fn channels() -> (tempfile::TempDir, Vec<std::sync::Arc<Channel>>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, secret) in [
        ("whsec", "whsec_AAAA"),
        ("token", "t0ken"),
        ("slack", "http://s/T/B/x"),
    ] {
        fs::write(folder.path().join(name), format!("{secret}\n")).unwrap();
    }
    let text = RECEIVERS.replace("DIR", &folder.path().display().to_string());
    let routes = Routes::parse(&text).unwrap();
    assert_eq!(routes.missing_secrets(), Vec::<String>::new());
    (folder, routes.channels().to_vec())
}

#[test]
fn every_receiver_gets_its_own_form() {
    let (_folder, channels) = channels();
    let now = Timestamp::from_second(1_790_000_000).unwrap();
    let mut notification = sample();
    notification.alerts[0].ends_at = None;
    let mut shown = String::new();
    for channel in channels
        .iter()
        .filter(|channel| channel.kind.as_str() != "log")
    {
        let rendered = render(channel, &notification);
        let request = of(&channel.kind, "msg_1", &notification, &rendered, now).unwrap();
        let user = request
            .basic_auth
            .map_or_else(String::new, |(user, _)| user);
        shown += &format!("{} POST {} {user}\n", channel.name, request.url);
        for (name, value) in request.headers {
            shown += &format!("  {name}: {value}\n");
        }
        shown += &format!("  {}\n", request.body);
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn an_end_tells_an_alertmanager_when_and_others_that_all_is_well() {
    let mut alert = sample().alerts.remove(0);
    let now = Timestamp::from_second(1_790_000_000).unwrap();
    let body = alertmanager_alert(&alert, now);
    assert_eq!(body["endsAt"], "1970-01-01T00:00:00Z");
    alert.ends_at = None;
    let body = alertmanager_alert(&alert, now);
    assert_eq!(body["endsAt"], after(now, ALERTMANAGER_KEEPS).to_string());
    assert_eq!(label_name("1st-floor.x"), "_1st_floor_x");
}
