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


# The languages of each source's files, in its own words.
PUBLISHED = {
    "ntrex": """
    afr amh arb aze-Latn bak bel bem ben bod bos bul cat ces ckb-Arab cym dan deu div dzo ell eng eng-GB eng-IN eng-US est
    eus ewe fao fas fij fil fin fra fra-CA fuc gle glg guj hau heb hin hmn hrv hun hye ibo ind isl ita jpn kan kat kaz khm
    kin kir kmr kor lao lav lit ltz mal mar mey mkd mlg mlt mon mri msa mya nde nep nld nno nob nso nya orm pan pol por
    por-BR prs pus ron rus shi sin slk slv smo sna-Latn snd-Arab som spa spa-MX sqi srp-Cyrl srp-Latn ssw swa swe tah tam
    tat tel tgk-Cyrl tha tir ton tsn tuk tur uig ukr urd uzb ven vie wol xho yor yue zho-CN zho-TW zul
    """.split(),
    "tatoeba": """
    afr amh ang ara arq arz ast awa aze bel ben ber bos bre bul cat cbk ceb ces cha cmn cor csb cym dan deu dsb dtp ell
    epo est eus fao fin fra fry gla gle glg gsw heb hin hrv hsb hun hye ido ile ina ind isl ita jav jpn kab kat kaz khm
    kor kur kzj lat lfn lit lvs mal mar max mhr mkd mon nds nld nno nob nov oci orv pam pes pms pol por ron rus slk slv
    spa sqi srp swe swg swh tam tat tel tgl tha tuk tur tzl uig ukr urd uzb vie war wuu xho yid yue zsm
    """.split(),
    "belebele": """
    acm_Arab afr_Latn als_Latn amh_Ethi apc_Arab arb_Arab arb_Latn ars_Arab ary_Arab arz_Arab asm_Beng azj_Latn bam_Latn
    ben_Beng ben_Latn bod_Tibt bul_Cyrl cat_Latn ceb_Latn ces_Latn ckb_Arab dan_Latn deu_Latn ell_Grek eng_Latn est_Latn
    eus_Latn fin_Latn fra_Latn fuv_Latn gaz_Latn grn_Latn guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hin_Latn hrv_Latn
    hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn jpn_Jpan kac_Latn kan_Knda kat_Geor kaz_Cyrl
    kea_Latn khk_Cyrl khm_Khmr kin_Latn kir_Cyrl kor_Hang lao_Laoo lin_Latn lit_Latn lug_Latn luo_Latn lvs_Latn mal_Mlym
    mar_Deva mkd_Cyrl mlt_Latn mri_Latn mya_Mymr nld_Latn nob_Latn npi_Deva npi_Latn nso_Latn nya_Latn ory_Orya pan_Guru
    pbt_Arab pes_Arab plt_Latn pol_Latn por_Latn ron_Latn rus_Cyrl shn_Mymr sin_Latn sin_Sinh slk_Latn slv_Latn sna_Latn
    snd_Arab som_Latn sot_Latn spa_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn tam_Taml tel_Telu tgk_Cyrl tgl_Latn
    tha_Thai tir_Ethi tsn_Latn tso_Latn tur_Latn ukr_Cyrl urd_Arab urd_Latn uzn_Latn vie_Latn war_Latn wol_Latn xho_Latn
    yor_Latn zho_Hans zho_Hant zsm_Latn zul_Latn
    """.split(),
    "afrisenti": """
    amh arq ary hau ibo kin orm pcm por swa tir tso twi yor
    """.split(),
    "nusax": """
    acehnese balinese banjarese buginese english indonesian javanese madurese minangkabau ngaju sundanese toba_batak
    """.split(),
    "xtd10": """
    de en es fr it jp ko pl ru tr zh
    """.split(),
}


@pytest.mark.parametrize("source", PUBLISHED)
def test_every_language_that_a_source_names_is_known_and_its_own(source):
    codes = [languages.normalise(written) for written in PUBLISHED[source]]
    assert len(set(codes)) == len(codes), "two files of one source must not become one language"


def test_a_language_in_a_second_script_does_not_take_its_short_code():
    assert [languages.normalise(code) for code in ("si", "sin", "ne", "ur", "urd", "bn")] == [
        *("sin_Sinh", "sin_Sinh", "npi_Deva", "urd_Arab", "urd_Arab", "ben_Beng")
    ]
    assert languages.normalise("ur-Latn") == "urd_Latn" and languages.info("ur-Latn").tier == languages.info("ur").tier


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


def test_a_language_of_your_own_has_a_private_code():
    own = languages.info("qaa_Ethi")
    assert languages.known("qaa_Ethi") and languages.normalise("qtz_Latn_KE") == "qtz_Latn_KE"
    assert (own.name, own.script, own.tier) == ("qaa_Ethi", "Ethi", "low")
    assert not languages.known("qza_Latn") and not languages.known("qaa")
    assert languages.info("que_Latn").name != "que_Latn", "Quechua begins with q too, and is in the table"
