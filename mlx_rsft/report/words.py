"""Every word of a report, in English and Japanese; ``sentences`` has the longer ones."""

from __future__ import annotations

from html import escape

from mlx_rsft.report.markup import Html, text
from mlx_rsft.report.sentences import SENTENCES

LANGUAGES = ("en", "ja")
LABELS: dict[str, tuple[str, str]] = {
    "title": ("Fine-tuning comparison", "微調整の比較レポート"),
    "contents": ("Contents", "目次"),
    # Sections, in order.
    "verdict": ("Verdict", "結論"),
    "failures": ("What did not work", "うまくいかなかったこと"),
    "next": ("What to do next", "次にすること"),
    "results": ("Results", "結果"),
    "differences": ("Differences from the baseline", "基準との差"),
    "curves": ("Learning curves", "学習曲線"),
    "probabilities": ("Token probabilities", "トークンの確率"),
    "weights": ("Weight by token class", "トークンの種類ごとの重み"),
    "side_effects": ("Gains and side effects", "効果と副作用"),
    "examples": ("Examples where the arms differ", "条件によって答えが異なる例"),
    "cost": ("Cost", "費用"),
    "method": ("Method", "方法"),
    "limits": ("Limits", "限界"),
    "all_metrics": ("All metrics", "すべての指標"),
    # Verdicts and outcomes.
    "go": ("Go", "実施"),
    "no-go": ("No-go", "見送り"),
    "undecided": ("Undecided", "判断保留"),
    "better": ("better", "改善"),
    "worse": ("worse", "悪化"),
    "changed": ("changed", "変化"),
    "unclear": ("no difference shown", "差は確認できず"),
    "none_right": ("none right", "正解なし"),
    "is_baseline": ("baseline", "基準"),
    "is_base": ("untrained model", "学習前のモデル"),
    "is_in": ("like the training rows", "学習データと同種"),
    "is_shifted": ("shifted", "条件が変化"),
    "right": ("right", "正解"),
    "wrong": ("wrong", "不正解"),
    "empty": ("(empty)", "（空欄）"),
    "not_judged": ("not judged", "未判定"),
    # Columns and rows.
    "arm": ("Arm", "条件"),
    "split": ("Split", "テスト区分"),
    "metric": ("Metric", "指標"),
    "difference": ("Difference", "差"),
    "interval": ("{level} % interval", "{level} % 区間"),
    "p_value": ("p", "p 値"),
    "p_adjusted": ("p, Holm", "p 値（Holm 補正）"),
    "detectable": ("Smallest detectable", "検出できる最小の差"),
    "reading": ("Reading", "判定"),
    "time": ("Time", "時間"),
    "time_ratio": ("Time over baseline", "基準比の時間"),
    "energy": ("Energy", "電力量"),
    "peak": ("Peak memory", "最大メモリ"),
    "tokens": ("Tokens", "トークン数"),
    "mean_p": ("Mean p", "平均確率"),
    "ess": ("Effective share", "有効サンプル比"),
    "rate": ("Learning rate", "学習率"),
    "gain_in": ("Gain, {split}", "効果（{split}）"),
    "prompt": ("Prompt", "入力"),
    "reference": ("Reference answer", "模範解答"),
    "row_of": ("{split}, row {row}", "{split} の {row} 行目"),
    "model": ("Model", "モデル"),
    "data": ("Data", "データ"),
    "seeds": ("Seeds", "乱数シード"),
    "steps": ("Steps per arm", "条件ごとのステップ数"),
    "created": ("Created", "作成"),
    "before": ("before", "学習前"),
    "after": ("after", "学習後"),
    "class.content": ("Content", "内容"),
    "class.template": ("Template and format", "書式"),
    "class.end": ("End of turn", "終端"),
    # Tiles.
    "tile_best": ("Best arm, {split}", "最良の条件（{split}）"),
    "tile_in": ("Same arm, {split}", "同じ条件（{split}）"),
    "tile_time": ("Its time over the baseline", "基準に対する時間"),
    # Axes.
    "step": ("training step", "学習ステップ"),
    "probability": ("probability of the right token", "正しいトークンの確率"),
    "baseline_better": ("baseline better", "基準が優位"),
    "arm_better": ("arm better", "この条件が優位"),
    # Metrics; others keep their own name.
    "metric.nll": ("NLL", "負の対数尤度"),
    "metric.perplexity": ("perplexity", "パープレキシティ"),
    "metric.token_accuracy": ("token accuracy", "トークン正解率"),
    "metric.exact_match": ("exact match", "完全一致率"),
    "metric.entropy": ("entropy", "エントロピー"),
    "metric.generated_exact_match": ("exact match, generated", "完全一致率（生成）"),
    "metric.contains": ("answer contained", "解答を含む割合"),
    "metric.numeric": ("number right", "数値正解率"),
    "metric.regex": ("pattern right", "パターン一致率"),
    "metric.json": ("JSON fields right", "JSON 項目の正解率"),
    "metric.format_valid": ("format valid", "書式が正しい割合"),
    "metric.length_ratio": ("length ratio", "長さの比"),
    "metric.refusal": ("declines", "回答を断る割合"),
    "metric.end_of_turn": ("ends its turn", "正しく終わる割合"),
    "metric.avg_at_n": ("right of n samples", "n 回中の正解率"),
    "metric.pass_at_k": ("one right of k", "k 回中 1 回以上正解する率"),
    "metric.distinct_answers": ("distinct answers", "異なる答えの割合"),
    "metric.distinct_ngrams": ("distinct phrases", "異なる語句の割合"),
    "metric.choices": ("right choice", "選択問題の正解率"),
    "metric.drift_kl": ("drift from the base (KL)", "元のモデルからのずれ (KL)"),
    "metric.drift_k3": ("drift from the base (k3)", "元のモデルからのずれ (k3)"),
    "metric.drift_nll": ("NLL above the base", "元のモデルとの対数尤度差"),
    "metric.kl": ("drift from the base (KL)", "元のモデルからのずれ (KL)"),
    "metric.k3": ("drift from the base (k3)", "元のモデルからのずれ (k3)"),
    "metric.retention": ("retention", "既存能力の保持"),
    # Units and amounts.
    "unit.nats/token": ("nats/token", "nat/トークン"),
    "unit.nats": ("nats", "nat"),
    "unit.per token": ("per token", "/トークン"),
    "unit.ratio": ("", ""),
    "points": ("{value}\N{NO-BREAK SPACE}points", "{value}\N{NO-BREAK SPACE}ポイント"),
    "seconds": ("{s} s", "{s} 秒"),
    "minutes": ("{m} min {s} s", "{m} 分 {s} 秒"),
    "hours": ("{h} h {m} min", "{h} 時間 {m} 分"),
    "between_sentences": (" ", ""),
    "between_names": (", ", "、"),
    "higher": ("higher is better", "高いほど良い"),
    "lower": ("lower is better", "低いほど良い"),
    "near 1": ("best near 1", "1 に近いほど良い"),
    "neither": ("no better or worse", "良し悪しなし"),
}
WORDS = LABELS | SENTENCES


class Words:
    """The words of one language.

    Args:
        lang: ``en`` or ``ja``.
    """

    def __init__(self, lang: str) -> None:
        self.lang = lang
        self._place = LANGUAGES.index(lang)

    def __call__(self, key: str, **values: str) -> str:
        """A word or sentence as plain text."""
        return WORDS[key][self._place].format(**values)

    def html(self, key: str, **values: str) -> Html:
        """A sentence as markup; its values may be markup themselves."""
        sentence = escape(WORDS[key][self._place], quote=False)
        return Html(sentence.format(**{k: text(value) for k, value in values.items()}))

    def known(self, key: str, otherwise: str) -> str:
        """The word, or what stands in the record where there is none for it."""
        return self(key) if key in WORDS else otherwise

    def metric(self, name: str) -> str:
        """What a metric is called, with its parameters if it has any."""
        plain, colon, parameters = name.partition(":")
        return self.known(f"metric.{plain}", plain) + colon + parameters

    def heading(self, name: str) -> str:
        """What a metric is called where a line begins."""
        called = self.metric(name)
        own = f"metric.{name.partition(':')[0]}" not in WORDS
        return name if own else called[:1].upper() + called[1:]
