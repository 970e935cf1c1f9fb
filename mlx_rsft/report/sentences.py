"""The sentences of a report, in English and Japanese."""

from __future__ import annotations

SENTENCES: dict[str, tuple[str, str]] = {
    # Verdict.
    "headline.go": (
        "{arm} does better than {baseline} where conditions have shifted.",
        "条件が変わったデータで、{arm} は {baseline} より良い結果でした。",
    ),
    "headline.no-go": (
        "Keep {baseline}: the evidence does not support a change.",
        "{baseline} を続けてください。変更を支持する根拠はありません。",
    ),
    "headline.undecided": (
        "These data cannot decide between {baseline} and the other arms.",
        "このデータでは、{baseline} と他の条件の優劣を決められません。",
    ),
    "compared": (
        "On {split}, {arm} reaches {value} and {baseline} {other} in {metric}: a "
        "difference of {difference} {interval}.",
        "{split} での{metric}は {arm} が {value}、{baseline} が {other} で、"
        "差は {difference} {interval} です。",
    ),
    "says.better": (
        "That is more than chance explains.",
        "偶然では説明しにくい差です。",
    ),
    "says.worse": (
        "It is worse, by more than chance explains.",
        "偶然では説明しにくい悪化です。",
    ),
    "says.changed": (
        "It changed, by more than chance explains.",
        "偶然では説明しにくい変化です。",
    ),
    "says.unclear": (
        "That may be chance.",
        "偶然の範囲かもしれません。",
    ),
    "costs": (
        "{arm} took {time}, {ratio} the time of {baseline}.",
        "{arm} の所要時間は {time} で、{baseline} の {ratio} です。",
    ),
    "invisible": (
        "With {n} rows per split, differences below {detectable} stay invisible.",
        "区分あたり {n} 行では、{detectable} 未満の差は見えません。",
    ),
    "reason": ("Reason on record", "記録された理由"),
    # Failures.
    "failed.zero_all": (
        "{arm} has nothing right on any split: it scores 0.",
        "{arm} はどのテスト区分でも正解がなく、0 点です。",
    ),
    "failed.zero_some": (
        "{arm} has nothing right on {splits}.",
        "{arm} は {splits} で正解がありません。",
    ),
    "failed.nobody": (
        "On {split}, no arm is shown to be better than {baseline}.",
        "{split} では、{baseline} より良いと確認できた条件はありません。",
    ),
    "failed.worse": (
        "On {split}, {arm} is worse than {baseline} by {difference} {interval}.",
        "{split} では、{arm} は {baseline} より悪化しました（差 {difference} {interval}）。",
    ),
    "failed.diverged": (
        "The training of {arm} diverged.",
        "{arm} の学習は発散しました。",
    ),
    "failed.none": (
        "No arm scored 0, none is worse than {baseline}, and every split has an arm "
        "that is better.",
        "0 点の条件も、{baseline} より悪化した条件もなく、どの区分にも改善した条件があります。",
    ),
    # Next.
    "next.go": (
        "Extend the pilot: more rows of the same kind, then train {arm} on all of them.",
        "試行を広げます。同種のデータを増やし、すべてを使って {arm} で学習します。",
    ),
    "next.go_check": (
        "Before deployment, test once on rows that no one has looked at yet.",
        "導入前に、まだ誰も見ていないデータで一度だけ確かめます。",
    ),
    "next.no-go": (
        "Use {baseline}. Spend the effort on the data: check the labels, and collect "
        "cases like the splits that stay low.",
        "{baseline} を使います。労力はデータに向け、ラベルを確かめ、低いままの区分に"
        "似た事例を集めます。",
    ),
    "next.undecided": (
        "Collect more test rows, then compare again with the same settings.",
        "テストデータを増やし、同じ設定でもう一度比較します。",
    ),
    "next.rows": (
        "About {rows} rows in {split} would decide a difference as large as the one "
        "measured ({now} now).",
        "測定された大きさの差を判定するには、{split} に約 {rows} 行が必要です（現在 {now} 行）。",
    ),
    "next.nobody": (
        "No objective is shown to mend {splits}. Rows of that kind in the training data "
        "may.",
        "{splits} は、どの目的関数でも改善を確認できませんでした。同種の行を学習データに加えると"
        "改善する可能性があります。",
    ),
    "next.zero": (
        "Do not use {arm} as it is. A floor, a first stage of plain SFT or more steps may "
        "mend it.",
        "{arm} をこのまま使わないでください。下限（floor）、通常の SFT での開始、ステップ数の"
        "追加で改善する可能性があります。",
    ),
    # What stands above the figures.
    "about.results": (
        "{metric} of each arm on each split, over all seeds, with {level} % interval "
        "({direction}). Marks compare with {baseline}.",
        "各条件・各テスト区分の{metric}（全シード、{level} % 区間、{direction}）。"
        "印は {baseline} との比較です。",
    ),
    "about.differences": (
        "Each arm minus {baseline}, on the same rows, in {metric}. A line is the "
        "{level} % interval: where it crosses zero, chance may explain the difference. "
        "Filled up: better; filled down: worse; hollow: no difference shown, after "
        "Holm's correction.",
        "同じ行での、各条件と {baseline} の{metric}の差です。線は {level} % 区間で、"
        "0 をまたぐ差は偶然かもしれません。上向きの塗り: 改善、下向きの塗り: 悪化、"
        "白抜き: 差は確認できず（Holm 補正後）。",
    ),
    "about.curves": (
        "Mean over seeds; the shade spans the seeds. Step 0 is the untrained model.",
        "シードの平均です。帯はシード間の幅、ステップ 0 は学習前のモデルです。",
    ),
    "about.probabilities": (
        "Share of the demonstrated tokens by the probability the model gives them, "
        "before training (outline) and after (filled).",
        "模範解答の各トークンにモデルが与える確率の分布です。線は学習前、塗りは学習後です。",
    ),
    "about.weights": (
        "Mean weight of a token in the last epoch. Near 0 a class is hardly trained.",
        "最後のエポックでのトークンの平均の重みです。0 に近い種類はほとんど学習されません。",
    ),
    "about.side_effects": (
        "What each arm gained over {baseline}, and what else changed with it.",
        "各条件の {baseline} に対する効果と、それに伴って変わったものです。",
    ),
    "about.unmeasured": (
        "No side effects were measured.",
        "副作用は測定されていません。",
    ),
    "about.examples": (
        "Drawn at random by the seed among the rows on which the arms differ; not "
        "chosen to please.",
        "条件によって答えが異なる行から、シードに従って無作為に選びました。都合の良い例を"
        "選んだものではありません。",
    ),
    "about.cost": (
        "One run, in the mean over the seeds of an arm; memory is the highest.",
        "1 回の学習あたりのシード平均です。メモリは最大値です。",
    ),
    "more_examples": (
        "{n} more are in the record.",
        "ほかに {n} 件が記録にあります。",
    ),
    "cut": (" … ({n} more letters)", " …（あと {n} 文字）"),
    # Method and limits.
    "method.same": (
        "All arms start from the same weights and see the same rows in the same order, "
        "for the same number of steps.",
        "すべての条件は、同じ重みから始め、同じ行を同じ順序で、同じステップ数だけ学習します。",
    ),
    "method.paired": (
        "Differences are paired: the same test rows in every arm. Intervals are {level} % "
        "intervals; p-values are corrected by Holm's method for the number of "
        "comparisons. Better or worse is said only where both agree.",
        "差は同じテスト行どうしの対応のある比較です。区間は {level} % 区間、p 値は比較の数に"
        "応じて Holm 法で補正しています。両方が一致した場合だけ改善・悪化と判定します。",
    ),
    "method.recorded": ("Settings on record", "記録された設定"),
    "limits.one": (
        "One model and one data set; another may turn out otherwise.",
        "一つのモデルと一つのデータセットの結果です。他では異なることがあります。",
    ),
    "limits.unclear": (
        "Where no difference is shown, there may still be one that is smaller than these "
        "rows can show.",
        "差が確認できない場合も、この行数では見えない小さな差がある可能性があります。",
    ),
    "limits.recorded": ("On record", "記録されたもの"),
    # Descriptions of plots, read aloud.
    "desc.curve": (
        "{arm}: from {first} at step {start} to {last} at step {end}.",
        "{arm}: ステップ {start} の {first} からステップ {end} の {last} へ。",
    ),
    "desc.difference": (
        "{arm}: {difference} {interval}, {outcome}.",
        "{arm}: {difference} {interval}、{outcome}。",
    ),
    "desc.histogram": (
        "Tokens with a probability of at least {edge}: {before} before, {after} after.",
        "確率が {edge} 以上のトークン: 学習前 {before}、学習後 {after}。",
    ),
    "desc.bar": ("{arm}: {value}.", "{arm}: {value}。"),
    "footer": (
        "Written by mlx-rsft {version}. This file is complete: it loads nothing and "
        "runs nothing. The same figures are in JSON and CSV files beside it.",
        "mlx-rsft {version} が作成しました。このファイルだけで完結し、何も読み込まず、何も"
        "実行しません。同じ数値は隣の JSON と CSV のファイルにあります。",
    ),
}
