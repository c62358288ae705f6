-- The tables of a run's summary, in their order. A query begins with its title and notes; every
-- number that a report shows is in one of them, and the report prints the query beside its table.

-- title: Funnel
-- Refused + environments = cases; kept + truncated + discarded + unscorable = trajectories;
-- kept + repeats + not kept = turns.
select 'cases read' as step, count(*) as "count" from cases
union all select '  environments', count(*) from cases where environment_id is not null
union all select '  refused', count(*) from cases where environment_id is null
union all select '  not played: truth is no node', count(*) from cases
    join checks using (case_id) where name = 'diagnosis_linkable' and not passed
    and environment_id is not null
    and environment_id not in (select environment_id from current_trajectories)
union all select 'trajectories played', count(*) from current_trajectories
union all select '  kept', count(*) from current_trajectories join verdicts using (trajectory_id)
    where status = 'kept'
union all select '  truncated', count(*) from current_trajectories
    join verdicts using (trajectory_id) where status = 'truncated'
union all select '  discarded', count(*) from current_trajectories
    join verdicts using (trajectory_id) where status = 'discarded'
union all select '  unscorable', count(*) from current_trajectories
    join verdicts using (trajectory_id) where status = 'unscorable'
union all select 'rollouts failed', count(distinct trajectory_id) from failures
    where stage in ('rollout', 'gold') and resolved is null
union all select 'turns played', count(*) from turn_fates
union all select '  kept (records of the dataset)', count(*) from turn_fates
    anti join repeated_turns using (trajectory_id, number) where kept
union all select '  kept, but the repeat of a record', count(*) from repeated_turns
union all select '  not kept', count(*) from turn_fates where not coalesce(kept, false);

-- title: Cases
select coalesce('refused: ' || reason, 'environment') as outcome, count(*) as cases from cases
    group by all
union all select 'not readable: ' || error_class, count(*) from failures where stage = 'read'
    and resolved is null group by all
order by cases desc, outcome;

-- title: Checks
-- Figures and thresholds are explained in docs/environments.md. A case is refused under the
-- first required check that it fails. Figures are of the cases to which the check applies.
select name as "check",
    case when bool_or(required) then 'refuses' when bool_or(applicable) then 'warns' end as failing,
    count(*) as cases,
       count(*) filter (where passed) as passed,
       count(*) filter (where applicable and not passed) as failed,
       count(*) filter (where not applicable) as "not applicable",
           any_value(threshold) filter (where applicable) as threshold,
       format('{:.4g} / {:.4g} / {:.4g}', min(figure) filter (where applicable),
           median(figure) filter (where applicable),
           max(figure) filter (where applicable)) as "lowest / median / highest"
from checks group by name order by bool_or(required) desc, name;

-- title: Ledger
-- What became of the reports' text: how much went to the initial observation, the menu, the
-- diagnosis or nothing, and why. The share is of all cases' count of the kind.
select kind, use,
    if(use = 'nothing' and ledger.reason = '', 'not taken over', ledger.reason) as reason,
    count(distinct case_id) as cases, sum(count)::bigint as count,
    round(sum(count) / sum(sum(count)) over (partition by kind), 3) as share,
    any_value(sample) as sample
from ledger group by kind, use, ledger.reason order by kind, count desc, use, ledger.reason;

-- title: Second opinions
-- Where the verifier disagrees with an environment, with the passage that it quotes; nothing was
-- changed for it. What it could not prove is 'not applicable' in the table of checks.
select case_id, replace(name, 'second_opinion: ', '') as question, detail
from checks where name like 'second_opinion: %' and applicable and not passed
order by case_id, name;

-- title: Refused cases
select case_id, reason, message, path from cases where environment_id is null
union all
select case_id, error_class, message, path from failures where stage = 'read' and resolved is null
order by reason, case_id;

-- title: Trajectories, by verdict
select status, reason, count(*) as trajectories
from current_trajectories join verdicts using (trajectory_id) group by all
    order by trajectories desc, status, reason;

-- title: Turns, by fate
select fate, count(*) as turns from turn_fates group by all order by turns desc, fate;

-- title: Teachers
with turn_counts as (
    select trajectory_id, count(*) as turns, count(*) filter (where kept) as kept from turn_fates
        group by all
),
failures_open as (
    select teacher, case stage when 'gold' then 'gold' else 'schema' end as style,
        count(distinct trajectory_id) as failed
    from failures where resolved is null group by all
)
select teacher, style, count(*) as trajectories, count(*) filter (where status = 'kept') as kept,
       count(*) filter (where status = 'truncated') as truncated,
       count(*) filter (where status = 'discarded') as discarded,
       count(*) filter (where status = 'unscorable') as unscorable,
       coalesce(any_value(failed), 0) as failed,
       sum(turn_counts.turns)::bigint as turns, sum(turn_counts.kept)::bigint as kept_turns
from current_trajectories join turn_counts using (trajectory_id)
left join verdicts using (trajectory_id) left join failures_open using (teacher, style)
group by teacher, style order by teacher, style;

-- title: Cost
-- Everything that was stored. Seconds are time spent deciding, summed over turns: rollouts
-- run side by side.
select 'environments' as stage, 'extractor, oracle' as model, sum(calls)::bigint as calls,
       sum(cached_calls)::bigint as cached, null as repaired_turns,
           sum(prompt_tokens)::bigint as prompt_tokens,
       sum(completion_tokens)::bigint as completion_tokens, round(sum(cost_usd), 4) as cost_usd,
           round(sum(seconds), 1) as seconds
from cases having sum(calls + cached_calls) > 0
union all
select case style when 'gold' then 'gold' else 'rollouts' end, teacher, sum(calls)::bigint,
    sum(cached_calls)::bigint,
       count(*) filter (where repaired), sum(prompt_tokens)::bigint, sum(completion_tokens)::bigint,
       round(sum(cost_usd), 4), round(sum(seconds), 1)
from turns join trajectories using (trajectory_id) group by all
union all
select stage || ' that failed', teacher, sum(calls)::bigint, sum(cached_calls)::bigint, null,
    sum(prompt_tokens)::bigint,
       sum(completion_tokens)::bigint, round(sum(cost_usd), 4), round(sum(seconds), 1)
from failures where calls > 0 group by all
order by stage, model;

-- title: Endings, by teacher
with last as (
    select trajectory_id, arg_max_null(dtc, number) as dtc, max(number) as turns from turn_scores
        group by all
)
select teacher, style, count(*) as trajectories,
    count(*) filter (where final_diagnosis is not null) as diagnosed,
       count(*) filter (where outcome = 'loop') as after_a_loop,
       count(*) filter (where dtc = 0) as reach_the_truth,
       count(*) filter (where dtc between 1 and 2) as within_2_hops,
       count(*) filter (where dtc > 2) as farther, count(*) filter (where dtc is null) as unknown,
       round(avg(turns), 2) as mean_turns
from current_trajectories left join last using (trajectory_id) group by all order by teacher, style;

-- title: DTC and RAC, by turn
-- DTC: hops from the top hypothesis to the truth (equation 3). RAC: hops from what changed
-- in the differential to the tests ordered before (equation 4), over those changes whose
-- distance is known. An unlinked diagnosis is no change. A turn that branches share counts once.
select number as turn, count(*) as turns, round(avg(dtc), 2) as mean_dtc,
    count(*) filter (where dtc is null) as dtc_unknown,
       round(avg(rac), 2) as mean_rac, count(*) filter (where changed = 0) as nothing_changed,
       count(*) filter (where rac is null and changed > 0) as rac_unknown,
       sum(changed)::bigint as changes, sum(unknown)::bigint as changes_unknown,
           sum(unlinked)::bigint as unlinked_diagnoses
from turn_scores join current_trajectories using (trajectory_id)
where number > branch_turn group by all order by turn;

-- title: RAC filter
-- Of the turns up to t*, after how many the differential changed so that there is a RAC, how many
-- RAC removed, and in which share it would remove a turn whose tests, or whose changes of the differential, were drawn from other cases (a sample,
-- kg/calibration.py). A filter that removes as much at random as in fact tells nothing.
with rules as (
    select max(threshold) as threshold from verdicts where strategy = 'dtc_rac'
), next as (
    select trajectory_id, number, lead(rac) over (partition by trajectory_id order by number) as rac
    from turn_scores
), up_to_the_end as (
    select count(*) as turns, count(rac) as turns_with_a_rac,
        count(*) filter (where fate like 'removed%') as removed
    from turn_fates left join next using (trajectory_id, number)
    where kept or fate like 'removed%'
)
select threshold, (select value from meta where key = 'rac_threshold_origin') as origin, turns,
    turns_with_a_rac, removed, round((select avg((rac > threshold)::int) from rac_null where kind = 'orders'), 3)
        as random_orders_removed,
    round((select avg((rac > threshold)::int) from rac_null where kind = 'changes'), 3)
        as random_changes_removed
from rules, up_to_the_end where threshold is not null;

-- title: What RAC could tell
-- Every turn from the second on, once. Without a RAC: nothing changed (such a turn removes nothing,
-- unless --idle-turns says otherwise); the tests before link to no node; the rest: no path, or
-- changed diagnoses that are no node.
with once as (
    select teacher, number, rac, changed, unlinked,
        lag(orders) over line as orders, lag(linked_orders) over line as linked_orders,
        number > branch_turn as own
    from turn_scores join current_trajectories using (trajectory_id)
    where style <> 'gold' window line as (partition by trajectory_id order by number)
)
select teacher, count(*) as turns, count(rac) as with_rac,
    count(*) filter (where rac is null and changed = 0 and unlinked = 0) as nothing_changed,
    count(*) filter (where rac is null and changed = 0 and unlinked > 0) as change_unknown,
    count(*) filter (where rac is null and changed > 0 and linked_orders = 0)
        as tests_link_to_nothing,
    count(*) filter (where rac is null and changed > 0 and linked_orders > 0) as no_path,
    sum(orders - linked_orders)::bigint as orders_that_link_to_nothing, sum(orders)::bigint as orders
from once where number > 1 and own group by teacher order by teacher;

-- title: Endings
-- The turns that commit to a diagnosis, and whether it is the truth (DTC 0): what the dataset keeps,
-- and the wrong ones that `--wrong-endings` took out.
select teacher, style, count(*) filter (where kept and dtc = 0) as right_kept,
    count(*) filter (where kept and dtc > 0) as wrong_kept,
    count(*) filter (where kept and dtc is null) as unknown_kept,
    count(*) filter (where not kept and wrong) as wrong_dropped,
    count(*) filter (where not kept and not wrong) as others_not_kept
from turns join current_trajectories using (trajectory_id)
    join (
        select trajectory_id,
            reason = 'wrong_ending' or reason like 'commitment_dropped%' as wrong
        from verdicts
    ) using (trajectory_id)
    join turn_fates on turn_fates.trajectory_id = turns.trajectory_id
        and turn_fates.number = turns.number
    left join turn_scores on turn_scores.trajectory_id = turns.trajectory_id
        and turn_scores.number = turns.number
where turns.final_diagnosis is not null group by all order by all;

-- title: Composition of the pruned trees
-- Every turn once: what it is as a record of the dataset, or why it is none.
select case when not coalesce(kept, false) then coalesce(fate, 'not scored')
        when turns.final_diagnosis is null then 'kept: orders tests'
        when dtc = 0 then 'kept: commits, right' when dtc > 0 then 'kept: commits, wrong'
        else 'kept: commits, unknown' end as part, count(*) as turns
from turn_fates join turns using (trajectory_id, number)
    left join turn_scores using (trajectory_id, number)
group by part order by part like 'kept%' desc, turns desc, part;

-- title: Orders
select teacher, count(*) as ordered, count(*) filter (where len(answer.results) > 0) as answered,
       count(*) filter (where len(answer.results) = 0) as unavailable,
       count(*) filter (where answer.method = 'exact') as by_exact_name,
       count(*) filter (where answer.method = 'synonym') as by_synonym,
       count(*) filter (where answer.method = 'words') as by_words,
       count(*) filter (where answer.method = 'panel') as by_panel,
       count(*) filter (where answer.method = 'encoder') as by_encoder,
       count(*) filter (where answer.method = 'llm') as by_llm
from (select trajectory_id, unnest(answers) as answer from turns)
    join current_trajectories using (trajectory_id)
group by all order by teacher;

-- title: Siblings that played the same
-- The same tests and leading hypotheses turn by turn, from the same start: little is learnt
-- from the second one.
select teacher, style, count(*) as trajectories,
    count(*) filter (where same_replies) as with_the_same_replies
from duplicates join trajectories using (trajectory_id) group by all order by all;

-- title: Replies that look broken or poisoned
-- Shares of each teacher's replies that had to be asked again (limit 0.2), that are to the letter
-- those to another case (0.3), and that are in a script that the case is not in (0.2), and how many
-- trajectories are out of the dataset for it. Of fewer than 50 replies nothing is concluded.
select teacher, turns as replies, round(repaired, 3) as asked_again,
    round(identical, 3) as of_another_case, round("foreign", 3) as in_another_script,
    (select count(*) from verdicts join trajectories using (trajectory_id)
        where reason = 'teacher_quarantined' and trajectories.teacher = teacher_rates.teacher)
        as quarantined_trajectories
from teacher_rates order by teacher;

-- title: Repeats
-- Kept turns whose prompt and reply are those of another one of the same teacher, to the letter:
-- they stand once in the dataset. Where a server ignores the seed, a higher temperature makes the
-- rollouts of a case differ.
select teacher, style, count(*) as repeats, count(distinct case_id) as cases from repeated_turns
group by all order by all;

-- title: Linking
select kind, graph, "method", count(*) as texts from links group by all order by all;

-- title: Failures
-- A refusal by a check is no failure: it is among the refused cases. What failed twice is open once.
select stage, teacher, error_class, count(*) as attempts,
       count(distinct (case_id, trajectory_id, case stage when 'read' then path end))
           filter (where resolved is null) as open,
       min(message) as for_example
from failures where not (stage = 'environment' and error_class = lower(error_class))
group by all order by attempts desc, stage, teacher, error_class;

-- title: Other forms
-- Replies that were read although their form was another (Mended), and what servers refused of a
-- request (ParameterRefused), by teacher.
with every as (
    select teacher, unnest(faults) as fault from turns join trajectories using (trajectory_id)
    union all
    select teacher, unnest(faults) from failures
)
select teacher, fault.error_class as kind, split_part(fault.message, ' (', 1) as what,
    count(*) as times
from every where fault.error_class in ('Mended', 'ParameterRefused')
group by all order by teacher, kind, times desc, what;

-- title: Runs
select run_id, started, state, round(epoch(coalesce(ended, started) - started), 1) as wall_seconds,
       (select count(*) from trajectories
           where trajectories.run_id = runs.run_id) as trajectories_played
from runs order by started;
