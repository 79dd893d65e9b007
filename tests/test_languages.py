"""One code system: what readers meet becomes the project's code, or an error that says what to write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmalign_lab import languages

ALL = languages.all_languages()


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("sw", "swh_Latn"),
        ("SW", "swh_Latn"),
        ("swa", "swh_Latn"),
        ("swh_Latn", "swh_Latn"),
        ("sw-KE", "swh_Latn_KE"),
        ("jp", "jpn_Jpan"),
        ("ara-Arab", "arb_Arab"),
        ("en", "eng_Latn"),
        ("en-001", "eng_Latn_001"),
        ("qu", "que_Latn"),
        ("quy", "quy_Latn"),
        ("no", "nob_Latn"),
        ("ku", "kmr_Latn"),
        ("chr", "chr_Cher"),
        ("zh", "zho_Hans"),
        ("zh-Hant", "zho_Hant"),
        ("zh_TW", "zho_Hant_TW"),
        ("zh-Hant-HK", "zho_Hant_HK"),
        ("kk-Arab", "kaz_Arab"),
        ("kaz", "kaz_Cyrl"),
        ("sr-Cyrl-BA", "srp_Cyrl_BA"),
        ("ca-ES-valencia", "cat_Latn_ES_valencia"),
        ("pt-PT", "por_Latn_PT"),
        ("por_latn_pt", "por_Latn_PT"),
        ("javanese", "jav_Latn"),
        ("ko-Kore", "kor_Hang"),
    ],
)
def test_what_readers_meet_becomes_our_code(written, code):
    assert languages.normalise(written) == code
    assert languages.known(code)


@pytest.mark.parametrize("code", ["sw", "swh", "swh_latn", "swh_Arab", "xxx_Latn", "", "por_Latn_pt", "swh_Latn ", None, 3])
def test_only_exact_codes_are_known(code):
    assert not languages.known(code)


@pytest.mark.parametrize("code", ["xx", "klingon", "", "eng-Latn-foo", "swh_Arab", "und", "en--GB", "sw_Latn_KE_KE_KE"])
def test_unknown_codes_are_refused(code):
    with pytest.raises(ValueError, match="unknown language code"):
        languages.normalise(code)


def test_suggestions_name_what_to_write():
    assert languages.suggestion("sw") == "did you mean 'swh_Latn'?"
    assert "'swh_Latn' (Swahili)" in languages.suggestion("swh_Arab")
    assert "'swh_Latn' (Swahili)" in languages.suggestion("swhili")
    assert "codes look like 'swh_Latn'" in languages.suggestion("xq")


def test_info_ignores_the_region():
    assert languages.info("pt-PT") == languages.info("por_Latn")
    sinhala = languages.info("si")
    assert (sinhala.name, sinhala.script, sinhala.family, sinhala.tier) == ("Sinhala", "Sinh", "Indo-European", "low")
    assert [languages.info(code).tier for code in ("en", "tr", "uk", "sw")] == ["high", "high", "middle", "low"]


def test_table_is_sound():
    codes = [language.code for language in ALL]
    assert codes == sorted(set(codes))
    for language in ALL:
        assert languages.known(language.code)
        assert language.code[4:] == language.script
        assert language.tier in ("high", "middle", "low")
        assert language.name and language.family
    tiers = {}
    for language in ALL:  # Joshi's classes are of languages, so every script of a language has its tier
        assert tiers.setdefault(language.code[:3], language.tier) == language.tier


def test_no_alias_means_two_languages():
    import csv
    from pathlib import Path

    owner = {}
    with open(Path(languages.__file__).with_name("languages.csv"), encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for alias in {*row["aliases"].lower().split(), row["name"].lower(), row["code"].lower()}:
                assert owner.setdefault(alias, row["code"]) == row["code"], alias
            assert owner.get(row["code"][:3], row["code"])[:3] == row["code"][:3], row["code"]


@given(st.sampled_from(ALL), st.sampled_from(["", "KE", "419"]), st.sampled_from(["-", "_"]), st.booleans())
def test_normalise_is_stable_under_case_and_separator(language, region, separator, upper):
    code = "_".join(part for part in (language.code, region) if part)
    written = code.replace("_", separator)
    written = written.upper() if upper else written.lower()
    assert languages.normalise(written) == code
    assert languages.normalise(languages.normalise(written)) == code


@given(st.text(max_size=12))
def test_any_text_is_understood_or_refused_with_a_suggestion(text):
    try:
        assert languages.known(languages.normalise(text))
    except ValueError as error:
        assert "; " in str(error)
        assert languages.suggestion(text)
