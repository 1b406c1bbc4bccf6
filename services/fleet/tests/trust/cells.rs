//! The table of docs/security.md, cell by cell.

use fleet::access::{Accounts, Action};

/// What an account is expected to get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) account: String,
    pub(crate) action: Action,
    pub(crate) topic: String,
    pub(crate) allowed: bool,
}

/// The accounts of the table: every service, and two devices.
pub(crate) fn accounts() -> Accounts {
    let device = |id: &str, location: &str| (id.to_owned(), vec![location.to_owned()]);
    Accounts::usual([
        device("sensor-001", "kitchen"),
        device("sensor-002", "attic"),
    ])
    .unwrap()
}

/// Every cell.
pub(crate) fn cells() -> Vec<Cell> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/security.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, section) = text.split_once("## Who may do what").unwrap();
    let mut rows = section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let fields = line.trim_matches('|').split('|').map(str::trim);
            fields.collect::<Vec<_>>()
        });
    let header = rows.next().unwrap();
    let mut cells = Vec::new();
    for row in rows.skip(1) {
        let topic = row[0].trim_matches('`');
        for (column, content) in header.iter().zip(&row).skip(1) {
            let account = match *column {
                "device" => "sensor-001",
                account => account,
            };
            for (action, letter) in [(Action::Publish, 'P'), (Action::Subscribe, 'S')] {
                if action == Action::Publish && topic.contains(['#', '+', '$']) {
                    continue;
                }
                cells.push(Cell {
                    account: account.to_owned(),
                    action,
                    topic: topic.to_owned(),
                    allowed: content.contains(letter),
                });
            }
        }
    }
    cells
}

#[test]
fn the_model_says_what_the_table_says() {
    let (accounts, cells) = (accounts(), cells());
    let forbidden = cells.iter().filter(|cell| !cell.allowed).count();
    assert!(
        cells.len() > 300 && forbidden > 200,
        "{} {forbidden}",
        cells.len()
    );
    for cell in cells {
        let account = accounts.get(&cell.account).unwrap();
        assert_eq!(
            account.may(cell.action, &cell.topic),
            cell.allowed,
            "{cell:?}"
        );
    }
}
