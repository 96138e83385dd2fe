use rstest::rstest;

use super::*;

fn origin(text: &str) -> Origin {
    text.parse().expect("an origin")
}

#[rstest]
#[case("nar/1w1fff338fvdw53sqgamddn1b2xgds473pv6y13gizdbqjv4i5p3.nar.xz")]
#[case("nar/a.nar?hash=abc&x=../..")]
#[case("a.nar")]
#[case("nar/a:b.nar")]
#[case("nar/..a/b..")]
fn a_path_stays_below_the_cache(#[case] text: &str) {
    let url: NarUrl = text.parse().expect("a URL");
    assert_eq!((url.as_str(), url.origin()), (text, None));
    assert!(!url.leaves(&origin("https://cache.example.org")));
    for base in ["https://cache.example.org/prefix", "https://cache.example.org/prefix/"] {
        assert_eq!(url.resolve(base), format!("https://cache.example.org/prefix/{text}"));
    }
}

#[rstest]
#[case("https://cache.example.org/nar/a.nar", false)]
#[case("HTTPS://CACHE.example.org:443/a.nar?token=%2e%2e", false)]
#[case("http://cache.example.org/nar/a.nar", true)]
#[case("https://cache.example.org:444/nar/a.nar", true)]
#[case("https://cache.example.org.evil.example/nar/a.nar", true)]
#[case("https://[::1]:8080/a.nar", true)]
fn an_absolute_url_says_whether_it_leaves(#[case] text: &str, #[case] leaves: bool) {
    let url: NarUrl = text.parse().expect("a URL");
    assert_eq!(url.leaves(&origin("https://cache.example.org/prefix?trusted=x")), leaves);
    assert_eq!(url.resolve("https://cache.example.org/prefix"), text);
}

#[rstest]
#[case("https://a.example:443/x", "https://a.example")]
#[case("http://A.example:80?x", "http://a.example")]
#[case("http://[::1]:8080", "http://[::1]:8080")]
fn an_origin_has_one_spelling(#[case] url: &str, #[case] expected: &str) {
    assert_eq!(origin(url).to_string(), expected);
    assert_eq!(origin(expected), origin(url));
}

#[rstest]
#[case("/etc/passwd", NarUrlError::Slash)]
#[case("//evil.example/a.nar", NarUrlError::Slash)]
#[case("../a.nar", NarUrlError::Step)]
#[case("nar/../../a.nar", NarUrlError::Step)]
#[case("nar/%2e%2E/a.nar", NarUrlError::Step)]
#[case("nar/.%2e", NarUrlError::Step)]
#[case("./a.nar", NarUrlError::Step)]
#[case("nar//a.nar", NarUrlError::Step)]
#[case("nar/", NarUrlError::Step)]
#[case("?x", NarUrlError::Step)]
#[case("https://a.example", NarUrlError::Step)]
#[case("https://a.example/", NarUrlError::Step)]
#[case("https://a.example/x/../y", NarUrlError::Step)]
#[case("file:///etc/passwd", NarUrlError::Scheme)]
#[case("ftp://a.example/a.nar", NarUrlError::Scheme)]
#[case("://a.example/a.nar", NarUrlError::Scheme)]
#[case("data:text/plain,x", NarUrlError::Scheme)]
#[case("https:nar/a.nar", NarUrlError::Scheme)]
#[case("https:/nar/a.nar", NarUrlError::Scheme)]
#[case("https:///a.nar", NarUrlError::Authority)]
#[case("https://user@a.example/a.nar", NarUrlError::Authority)]
#[case("https://a.example:@evil.example/a.nar", NarUrlError::Authority)]
#[case("https://a.example:0/a.nar", NarUrlError::Authority)]
#[case("https://a.example:/a.nar", NarUrlError::Authority)]
#[case("https://a.example:65536/a.nar", NarUrlError::Authority)]
#[case("https://a.example:+80/a.nar", NarUrlError::Authority)]
#[case("https://[::1/a.nar", NarUrlError::Authority)]
#[case("https://[::1]x/a.nar", NarUrlError::Authority)]
#[case("https://[a.example]/a.nar", NarUrlError::Authority)]
#[case("https://a%2eexample/a.nar", NarUrlError::Authority)]
fn what_leads_elsewhere_is_refused(
    #[case] url: &str,
    #[case] error: impl Fn(String) -> NarUrlError,
) {
    assert_eq!(url.parse::<NarUrl>(), Err(error(url.to_owned())));
}

#[test]
fn what_programs_read_in_two_ways_is_refused() {
    for character in [' ', '\t', '\0', '\n', '\\', '#', '"', '<', '{', '\u{7f}', 'ä', '\u{202e}'] {
        let url = format!("nar/a{character}b");
        assert_eq!(url.parse::<NarUrl>(), Err(NarUrlError::Character { url, character }));
    }
    assert_eq!("".parse::<NarUrl>(), Err(NarUrlError::Empty));
    assert!("a".repeat(NAR_URL_LEN_MAX).parse::<NarUrl>().is_ok());
    let len = NAR_URL_LEN_MAX + 1;
    assert_eq!("a".repeat(len).parse::<NarUrl>(), Err(NarUrlError::TooLong(len)));
}
