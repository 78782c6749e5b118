//! `inputs/certificates/metallb` holds what MetalLB 0.16.1's rotator made (cert-controller 0.15.0, CreateCACert and
//! CreateCertPEM): good from the start of 2026, the authority for ten years, the certificate for one. Nothing trusts it.

use super::*;

fn names() -> Vec<String> {
    vec!["metallb-webhook-service.metallb-system.svc".to_owned()]
}

/// 2026-01-01, when MetalLB's pair begins.
const BEGIN: u64 = 1_767_225_600;
const DAY: u64 = 86_400;

/// So many days into the life of MetalLB's pair.
fn day(days: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(BEGIN + days * DAY)
}

fn metallbs() -> Kept {
    Kept {
        authority: include_bytes!("../inputs/certificates/metallb/ca.crt").to_vec(),
        authority_key: include_bytes!("../inputs/certificates/metallb/ca.key").to_vec(),
        chain: include_bytes!("../inputs/certificates/metallb/tls.crt").to_vec(),
        key: include_bytes!("../inputs/certificates/metallb/tls.key").to_vec(),
    }
}

fn made(now: SystemTime) -> Kept {
    Kept::default().renewed(&names(), now).unwrap()
}

#[test]
fn metallbs_pair_serves_until_it_would_be_renewed() {
    assert_eq!(metallbs().flaw(&names(), day(1)), None);
    assert_eq!(metallbs().flaw(&names(), day(274)), None);
    let flaw = metallbs().flaw(&names(), day(276)).unwrap();
    assert!(
        matches!(&flaw, Flaw::Refused(why) if why.contains("expired")),
        "{flaw}"
    );
    metallbs().served().unwrap();
}

#[test]
fn metallbs_authority_signs_the_next_certificate() {
    let before = metallbs();
    let after = before.renewed(&names(), day(300)).unwrap();
    assert_eq!(after.authority, before.authority);
    assert_eq!(after.authority_key, before.authority_key);
    assert_ne!(after.chain, before.chain);
    assert_eq!(after.flaw(&names(), day(300)), None);
    assert_eq!(after.flaw(&names(), day(300 + 274)), None);
    assert!(after.flaw(&names(), day(300 + 276)).is_some());
    // Those who still trust the authority alone believe it.
    let seen_by_others = Kept {
        authority_key: Vec::new(),
        ..after
    };
    assert_eq!(seen_by_others.flaw(&names(), day(300)), None);
}

#[test]
fn an_authority_about_to_end_is_replaced_and_stays_trusted() {
    let before = metallbs();
    let almost = day(10 * 365 - 60);
    let within = Kept {
        authority: before.authority.clone(),
        ..before.renewed(&names(), day(3300)).unwrap()
    };
    assert_eq!(within.flaw(&names(), almost), Some(Flaw::AuthorityEnds));
    let after = within.renewed(&names(), almost).unwrap();
    assert_eq!(after.flaw(&names(), almost), None);
    assert_eq!(certificates(&after.authority).unwrap().len(), 2);
    // A controller that has not looked yet shows the old certificate, and whoever trusts the new Secret believes it.
    let not_looked = Kept {
        authority: after.authority.clone(),
        ..within
    };
    assert!(not_looked.check(&names(), almost).is_ok());
    assert!(after.authority_key.is_empty());
}

#[test]
fn what_is_made_from_nothing_serves_a_year() {
    let now = day(100);
    let made = made(now);
    assert_eq!(made.flaw(&names(), now), None);
    assert_eq!(
        made.flaw(&names(), now + Duration::from_hours(274 * 24)),
        None
    );
    let late = now + Duration::from_hours(276 * 24);
    assert_eq!(made.flaw(&names(), late), Some(Flaw::AuthorityEnds));
    assert!(made.check(&names(), now - Duration::from_mins(30)).is_ok());
    made.served().unwrap();
    // MetalLB begins anew where there is no key; with one that is not RSA it would never serve.
    assert!(!made.to_data().contains_key("ca.key"));
    let other = [
        names(),
        vec!["webhook-service.metallb-system.svc".to_owned()],
    ]
    .concat();
    assert!(matches!(made.flaw(&other, now), Some(Flaw::Refused(_))));
    assert_eq!(made.renewed(&other, now).unwrap().flaw(&other, now), None);
}

#[test]
fn only_one_authority_before_is_kept() {
    let first = made(day(0));
    let second = first.renewed(&names(), day(300)).unwrap();
    let third = second.renewed(&names(), day(600)).unwrap();
    let one = certificates(&second.authority).unwrap();
    let other = certificates(&third.authority).unwrap();
    assert_eq!(one.len(), 2);
    assert_eq!(other.len(), 2);
    assert_eq!(other[1], one[0]);
    // What has ended is not carried along.
    let late = first.renewed(&names(), day(400)).unwrap();
    assert_eq!(certificates(&late.authority).unwrap().len(), 1);
}

#[test]
fn what_does_not_serve_is_named_and_replaced() {
    let now = day(1);
    let good = metallbs();
    let stranger = made(now);
    let cases = [
        (Kept::default(), Flaw::Missing("ca.crt")),
        (
            Kept {
                key: Vec::new(),
                ..good.clone()
            },
            Flaw::Missing("tls.key"),
        ),
    ];
    for (kept, expected) in cases {
        assert_eq!(kept.flaw(&names(), now), Some(expected));
    }
    let unreadable = [
        Kept {
            chain: b"x".to_vec(),
            ..good.clone()
        },
        Kept {
            key: stranger.key.clone(),
            ..good.clone()
        },
    ];
    for kept in &unreadable {
        assert!(matches!(
            kept.flaw(&names(), now),
            Some(Flaw::Unreadable(_))
        ));
    }
    let strange = Kept {
        authority: stranger.authority.clone(),
        ..good.clone()
    };
    assert!(matches!(
        strange.flaw(&names(), now),
        Some(Flaw::Refused(_))
    ));
    let no_authority = Kept {
        authority: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec(),
        ..good
    };
    assert!(no_authority.flaw(&names(), now).is_some());
    for kept in unreadable
        .into_iter()
        .chain([strange, no_authority, Kept::default()])
    {
        assert_eq!(
            kept.renewed(&names(), now).unwrap().flaw(&names(), now),
            None
        );
    }
}

#[test]
fn a_key_that_does_not_belong_to_the_authority_signs_nothing() {
    let now = day(1);
    let mixed = Kept {
        authority: made(now).authority,
        authority_key: metallbs().authority_key,
        ..Kept::default()
    };
    let renewed = mixed.renewed(&names(), now).unwrap();
    assert_eq!(renewed.flaw(&names(), now), None);
    assert!(renewed.authority_key.is_empty());
}

#[test]
fn the_secret_has_metallbs_names() {
    let data = metallbs().to_data();
    let names: Vec<_> = data.keys().map(String::as_str).collect();
    assert_eq!(names, ["ca.crt", "ca.key", "tls.crt", "tls.key"]);
    assert_eq!(Kept::from_data(Some(&data)), metallbs());
    assert_eq!(Kept::from_data(None), Kept::default());
}

#[test]
fn a_name_that_is_none_is_refused() {
    let error = Kept::default()
        .renewed(&["ä.svc".to_owned()], day(0))
        .unwrap_err();
    assert!(error.to_string().contains("Service names"), "{error}");
}

#[test]
fn nothing_of_a_key_is_printed() {
    assert_eq!(format!("{:?}", metallbs()), "Kept { .. }");
}
