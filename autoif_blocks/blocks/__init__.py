"""The blocks. `BLOCKS` is the whole registry: a short name and where the class lives, imported when it is needed."""

from __future__ import annotations

BLOCKS = {
    # readers and joins
    "read_lines": "autoif_blocks.blocks.readers.ReadLines",
    "read_jsonl": "autoif_blocks.blocks.readers.ReadJsonl",
    "join_queries": "autoif_blocks.blocks.queries.JoinQueries",
    "read_run": "autoif_blocks.blocks.readers.ReadRun",
    "join_prompts": "autoif_blocks.blocks.pairs.JoinPrompts",
    "compose": "autoif_blocks.blocks.compose.Compose",
    "place_constraints": "autoif_blocks.blocks.constraints.PlaceConstraints",
    # generators: a model writes
    "self_instruct": "autoif_blocks.blocks.generators.SelfInstruct",
    "write_verifiers": "autoif_blocks.blocks.generators.WriteVerifiers",
    "back_translate": "autoif_blocks.blocks.generators.BackTranslate",
    "repair_functions": "autoif_blocks.blocks.repair.RepairFunctions",
    "respond": "autoif_blocks.blocks.generators.Respond",
    "sample_responses": "autoif_blocks.blocks.pairs.SampleResponses",
    "converse": "autoif_blocks.blocks.constraints.Converse",
    # executors: model-written code runs, in the sandbox
    "cross_validate": "autoif_blocks.blocks.executors.CrossValidate",
    "verify_responses": "autoif_blocks.blocks.executors.VerifyResponses",
    "verify_constraints": "autoif_blocks.blocks.constraints.VerifyConstraints",
    "mutation_score": "autoif_blocks.blocks.quality.MutationScore",
    "mine_disagreements": "autoif_blocks.blocks.quality.MineDisagreements",
    "rate_responses": "autoif_blocks.blocks.pairs.RateResponses",
    # scorers: a value is added
    "judge_label": "autoif_blocks.blocks.judges.JudgeLabel",
    "judge_score": "autoif_blocks.blocks.judges.JudgeScore",
    "nli_label": "autoif_blocks.blocks.nli.NliLabel",
    # filters: records stay or go
    "keep_where": "autoif_blocks.blocks.filters.KeepWhere",
    "keep_length": "autoif_blocks.blocks.filters.KeepLength",
    "drop_label": "autoif_blocks.blocks.filters.DropLabel",
    "decontaminate": "autoif_blocks.blocks.contamination.Decontaminate",
    # filters that compare records with one another
    "dedup": "autoif_blocks.blocks.duplicates.Dedup",
    "dedup_minhash": "autoif_blocks.blocks.duplicates.DedupMinhash",
    "dedup_semantic": "autoif_blocks.blocks.duplicates.DedupSemantic",
    "dedup_functions": "autoif_blocks.blocks.behaviour.DedupFunctions",
    # pairs
    "make_pairs": "autoif_blocks.blocks.pairs.MakePairs",
    # writers
    "write_lines": "autoif_blocks.blocks.writers.WriteLines",
    "format_sft": "autoif_blocks.blocks.writers.FormatSft",
    "format_dpo": "autoif_blocks.blocks.writers.FormatDpo",
    "format_rlvr": "autoif_blocks.blocks.writers.FormatRlvr",
}
