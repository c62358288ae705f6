-- What the viewer's pages show, over a snapshot of the store.

-- title: prepare fates
-- Views that walk every path of every tree are computed once a snapshot, not once a page.
create temp table fates as select * from turn_fates;

-- title: prepare open_failures
-- A refusal by a check is no failure, and what failed twice is open once.
create temp table open_failures as
select stage, case_id, trajectory_id, arg_max(error_class, time) as error_class
from failures
where resolved is null and not (stage = 'environment' and error_class = lower(error_class))
group by stage, case_id, trajectory_id;

-- title: prepare leaves
-- `dtc` is that of the last turn; null: unknown, whatever is known of the turns before.
create temp table leaves as
select trajectory_id, case_id, environment_id, teacher, style, sample, outcome,
    played.final_diagnosis, parent_id, branch_turn,
    coalesce(verdicts.status, 'not scored') as status, coalesce(verdicts.reason, '') as reason,
    verdicts.removed_turns, verdicts.last_turn,
    turn.turns, coalesce(turn.kept, 0) as kept, turn.cost_usd, turn.tokens,
    last.dtc, duplicates.first_id
from current_trajectories as played
left join verdicts using (trajectory_id)
left join (
    select turns.trajectory_id, count(*) as turns, count(*) filter (where fates.kept) as kept,
        sum(cost_usd) as cost_usd, sum(prompt_tokens + completion_tokens)::bigint as tokens
    from turns
    left join fates
        on fates.trajectory_id = turns.trajectory_id and fates.number = turns.number
    group by all
) as turn using (trajectory_id)
left join (
    select trajectory_id, arg_max_null(dtc, number) as dtc from turn_scores group by all
) as last using (trajectory_id)
left join duplicates using (trajectory_id);

-- title: prepare judged
-- What every judge found, with the shares that make precision and recall.
create temp table judged as
with lists as (
    select trajectory_id, judge, protocol, repeat,
        (judgement->>'$.correct')::boolean as correct,
        from_json(judgement->'$.tests.requested', '[["JSON"]]') as requested,
        from_json(judgement->'$.tests.documented', '[["JSON"]]') as documented,
        coalesce(from_json(judgement->'$.notes', '["VARCHAR"]'), []) as notes,
        coalesce((judgement->>'$.usage.cost_usd')::double, 0) as judge_usd
    from judgements
)
select trajectory_id, case_id, teacher, sample, outcome, final_diagnosis,
    environments.diagnosis as truth, split_part(judge, '@', 1) as judge, judge as judge_key,
    protocol, repeat, correct,
    [{'name': t[1]->>'$', 'hit': t[2]::boolean} for t in requested] as requested,
    [{'name': t[1]->>'$', 'hit': t[2]::boolean} for t in documented] as documented,
    len(list_filter(requested, lambda t: t[2]::boolean)) as matched,
    len(list_filter(documented, lambda t: t[2]::boolean)) as found,
    notes, turns, tokens, leaves.cost_usd, judge_usd
from lists join leaves using (trajectory_id) join environments using (environment_id, case_id);

-- title: prepare judged_rollouts
-- Of every rollout what each judge says over all its repeats, as the result has it.
create temp table judged_rollouts as
select case_id, sample, teacher, trajectory_id, outcome, final_diagnosis, truth, judge, judge_key,
    protocol, scores.correct, precision, recall, cost_usd, sum(judge_usd) as judge_usd
from judged join scores using (trajectory_id, protocol, judge_key)
group by all;

-- title: prepare judged_cases
create temp table judged_cases as
select case_id, count(*) filter (where correct) as "right", count(correct) as verdicts
from judged_rollouts group by all;

-- title: evaluation
-- Each judge's verdicts of a teacher: how many trajectories it judged, and how many it calls right.
select teacher, judge, protocol, count(*) as judged, count(correct) as scored,
    count(*) filter (where correct) as correct, count(distinct case_id) as cases,
    avg(precision) as precision, avg(recall) as recall,
    sum(cost_usd) as cost_usd, sum(judge_usd) as judge_usd
from judged_rollouts group by all order by all;

-- title: right runs
-- How many cases have so many right verdicts of so many.
select "right", verdicts, count(*) as cases from judged_cases where verdicts > 0
group by "right", verdicts order by "right" / verdicts desc, verdicts desc;

-- title: any scored
select 1 from leaves where status <> 'not scored' limit 1;

-- title: thing of a label
select 1 from cases
where case_id = $1 and ($2 = '' or exists (
    select 1 from trajectories where trajectory_id = $2 and case_id = $1));

-- title: any evaluation
select 1 from runs where flow = 'evaluate' limit 1;

-- title: any judged
select 1 from judged limit 1;

-- title: players
select trajectory_id, teacher, style, sample from trajectories;

-- title: passages of reports
-- What stands around words (in small letters) in the reports of some cases.
with reports as (
    select case_id, replace("text", chr(10), ' ') as words
    from cases where case_id in (select unnest($2::varchar[]))
)
select case_id,
    '… ' || substr(words, greatest(1, strpos(lower(words), $1) - 60), 160) || ' …' as passage
from reports;

-- title: case ids
select case_id from cases order by case_id;

-- title: judged of a case
select * from judged where case_id = ? order by trajectory_id, judge, repeat;

-- title: right of a case
-- The trajectories that a judge calls right.
select distinct trajectory_id from judged_rollouts where case_id = ? and correct;

-- title: names of a truth
-- Every wording that the disease graph takes for the case's true diagnosis.
select distinct lower(other."text") as name
from links as truth join links as other using (graph, kind, node)
where truth.kind = 'diagnosis' and lower(truth."text") = lower(?) and truth.node is not null;

-- title: turns of a path
select turns.* from paths join turns
    on turns.trajectory_id = paths.owner_id and turns.number = paths.number
where paths.path_id = ? and turns.number < ? order by turns.number;

-- title: trajectory of a turn
select played.case_id, played.teacher, played.style, played.t_max, played.prompt_version,
    environments.initial_observation
from trajectories as played join environments using (environment_id) where trajectory_id = ?;

-- title: neighbours of a case
select (select max(case_id) from cases where case_id < $id) as before,
    (select min(case_id) from cases where case_id > $id) as after;

-- title: totals
select
    (select count(*) from cases) as cases,
    (select count(*) from cases where environment_id is not null) as environments,
    (select count(*) from cases where environment_id is null) as refused,
    (select count(*) from open_failures) as failures,
    count(*) as trajectories,
    count(*) filter (where kept > 0) as kept_trajectories,
    coalesce(sum(turns), 0)::bigint as turns,
    coalesce(sum(kept), 0)::bigint as kept_turns,
    coalesce(sum(tokens), 0)::bigint as tokens,
    (select coalesce(sum(cost_usd), 0) from turns)
        + (select coalesce(sum(cost_usd), 0) from failures)
        + (select coalesce(sum(cost_usd), 0) from cases) as cost_usd
from leaves;

-- title: fates
select coalesce(fate, 'not scored') as fate, count(*) as turns
from fates group by all order by turns desc, fate;

-- title: endings
-- The turns that commit to a diagnosis: whether it is the truth, and whether they are kept.
select case when fates.kept then 'kept: ' else 'not kept: ' end
        || case when scores.dtc is null then 'unknown' when scores.dtc = 0 then 'right'
            else 'wrong' end as ending,
    count(*) as turns
from turns join fates using (trajectory_id, number)
left join turn_scores as scores using (trajectory_id, number)
where turns.final_diagnosis is not null group by all order by ending;

-- title: verdicts
select status, reason, count(*) as trajectories
from leaves group by all order by trajectories desc, status, reason;

-- title: teachers
select teacher, style, count(*) as trajectories,
    count(*) filter (where status = 'kept') as kept,
    count(*) filter (where status = 'truncated') as truncated,
    count(*) filter (where status = 'discarded') as discarded,
    count(*) filter (where status = 'unscorable') as unscorable,
    sum(turns)::bigint as turns, sum(kept)::bigint as kept_turns, avg(turns) as mean_turns,
    count(*) filter (where final_diagnosis is not null and dtc = 0) as truth, count(dtc) as known,
    count(first_id) as duplicates, sum(tokens)::bigint as tokens, sum(cost_usd) as cost_usd
from leaves group by all order by all;

-- title: open_failures
select stage, error_class, count(*) as failures, count(distinct case_id) as cases
from open_failures
group by all order by failures desc, stage, error_class;

-- title: refusals
select reason, count(*) as cases from cases where environment_id is null
group by all order by cases desc, reason;

-- title: texts
-- What took over the reports' characters.
select "use", sum("count") / sum(sum("count")) over () as share from ledger
where kind = 'characters' group by all order by share desc;

-- title: runs
select flow, state, started, ended, settings, versions
from runs order by started desc limit 8;

-- title: threshold
select max(threshold) as threshold from verdicts where strategy = 'dtc_rac';

-- title: DTC by turn
-- Mean DTC of every teacher at every turn, over the trajectories of which it is known, and how many
-- these are (Figure 5a).
-- `half` is half the 95 % interval of the mean (normal, over trajectories).
select teacher, number, avg(scores.dtc) as mean, count(scores.dtc) as known,
    coalesce(1.96 * stddev_samp(scores.dtc) / sqrt(count(scores.dtc)), 0) as half
from turn_scores as scores join leaves using (trajectory_id)
where number <= 12 and number > branch_turn group by all having count(scores.dtc) > 0 order by all;

-- title: RAC
-- How often each RAC, rounded to half a hop, was measured, by teacher; each turn once.
select teacher, round(rac * 2) / 2 as rac, count(*) as turns
from turn_scores join leaves using (trajectory_id)
where rac is not null and number > branch_turn group by all order by all;

-- title: cases
-- How the trees of the cases came out, and in how many verdicts of the judges they are right.
select cases.case_id, cases.title, cases.source, cases.reason, environments.diagnosis,
    len(environments.menu) as tests, coalesce(trajectories, 0) as trajectories,
    coalesce(truth, 0) as truth, coalesce(kept_turns, 0) as kept_turns,
    coalesce(turns, 0) as turns, nearest, coalesce(open, 0) as open,
    coalesce("right", 0) as "right", coalesce(verdicts, 0) as verdicts,
    case when cases.environment_id is null then 'refused' when open > 0 then 'failures'
        when truth > 0 or "right" > 0 then 'truth reached' else 'truth not reached' end as state
from cases left join environments using (environment_id)
left join (
    select case_id, count(*) as trajectories,
        count(*) filter (where final_diagnosis is not null and dtc = 0) as truth,
        sum(kept)::bigint as kept_turns, sum(turns)::bigint as turns, min(dtc) as nearest
    from leaves group by all
) as played on played.case_id = cases.case_id
left join (
    select case_id, count(*) as open from open_failures group by all
) as failed on failed.case_id = cases.case_id
left join judged_cases on judged_cases.case_id = cases.case_id;

-- title: case
select cases.case_id, cases.title, cases.source, cases.licence, cases.path, cases."text",
    coalesce((cases.publication ->> 'summary_at')::int, 0) as summary_at,
    cases.reason, cases.message, initial_observation, menu, diagnosis, synonyms, warnings,
    body_system, disease_type, evaluation_only
from cases left join environments using (environment_id) where cases.case_id = ?;

-- title: trajectories of a case
select * from leaves where case_id = ?
order by branch_turn, teacher, style, sample, trajectory_id;

-- title: turns of a case
select turns.*, scores.dtc, scores.rac, fates.kept, fates.fate
from turns join leaves using (trajectory_id)
left join fates on fates.trajectory_id = turns.trajectory_id and fates.number = turns.number
left join turn_scores as scores
    on scores.trajectory_id = turns.trajectory_id and scores.number = turns.number
where leaves.case_id = ? order by turns.trajectory_id, turns.number;

-- title: checks of a case
select * from checks where case_id = ? order by required desc, "name";

-- title: ledger of a case
-- The sums of its text, and what the source itself left out; lines and rows are seen in the marks.
select kind, "use", reason, "count", share, sample from ledger
where case_id = ? and kind not in ('sentences', 'table rows', 'figure captions')
order by kind <> 'characters', kind, "count" desc;

-- title: failures of a case
select * from failures where case_id = ? order by time;
