-- The store of a run: one DuckDB file. One row a turn; a branch holds only its own turns and names
-- its parent,
-- so the whole line of a branch is its parent's turns up to branch_turn, then its own (view
-- `paths`).

create table if not exists meta (key varchar primary key, value varchar not null);

create table if not exists runs (
    run_id varchar primary key,
    flow varchar not null,               -- distill, environments
    flow_run_id varchar,
    pid integer not null,
    started timestamptz not null,
    ended timestamptz,
    state varchar not null,              -- running, completed, failed, interrupted
    settings json not null,
    versions json not null
);

-- Every case report that was read, whole, with what became of it.
create table if not exists cases (
    case_id varchar primary key,
    source varchar not null,
    title varchar not null,
    path varchar not null,
    licence varchar,
    -- what the source tells: pmcid, doi, journal, date, article_type
    publication json not null,
    "text" varchar not null,
    report_hash varchar not null,
    -- the settings of stage 1: under others the case is built again
    built_with varchar not null,
    environment_id varchar,              -- null: refused
    reason varchar,                      -- the name of the check that refused it
    message varchar,
    -- what the extractor and the oracle's model used, over all attempts
    calls integer not null,
    prompt_tokens bigint not null,
    completion_tokens bigint not null,
    cost_usd double not null,
    seconds double not null,
    cached_calls integer not null,
    faults struct(error_class varchar, message varchar, raw varchar)[] not null
);

-- Every check of every case, passed or not.
create table if not exists checks (
    case_id varchar not null,
    "name" varchar not null,
    passed boolean not null,
    figure double not null,
    threshold double not null,
    required boolean not null,           -- false: a failure is a warning
    detail varchar not null,
    applicable boolean not null,         -- false: the check had nothing to look at
    primary key (case_id, "name")
);

-- What became of every report's text: how much of a kind went to which use, and why to none.
create table if not exists ledger (
    case_id varchar not null,
    kind varchar not null,               -- characters, sentences, table rows, figure captions, ...
    "use" varchar not null,              -- observation, menu, diagnosis, nothing
    "count" bigint not null,
    share double not null,               -- of the case's count of this kind
    reason varchar not null,
    sample varchar not null
);

create table if not exists environments (
    environment_id varchar primary key,
    case_id varchar not null,
    source varchar not null,
    title varchar not null,
    initial_observation varchar not null,
    menu struct("name" varchar, category varchar, result varchar, aliases varchar[],
        "minor" varchar, "quote" varchar)[] not null,
    diagnosis varchar not null,
    synonyms varchar[] not null,
    licence varchar,
    evaluation_only boolean not null,
    warnings varchar[] not null,
    body_system varchar not null,        -- empty: not told
    disease_type varchar not null,
    rare boolean
);

create table if not exists trajectories (
    trajectory_id varchar primary key,
    environment_id varchar not null,
    case_id varchar not null,
    teacher varchar not null,
    style varchar not null,
    sample integer not null,
    settings_hash varchar not null,
    parent_id varchar,
    -- the last turn shared with the parent; 0: a rollout from o1
    branch_turn integer not null,
    seed bigint not null,
    outcome varchar not null,            -- diagnosed, turn_limit, loop
    t_max integer not null,
    final_diagnosis varchar,
    prompt_version varchar not null,
    code_version varchar not null,
    run_id varchar not null,
    stored timestamptz not null
);

create table if not exists turns (
    trajectory_id varchar not null,
    number integer not null,
    reasoning varchar not null,
    differential struct(diagnosis varchar, confidence integer)[] not null,
    "pivot" varchar not null,
    tests varchar[] not null,
    answers struct("order" varchar, results struct(test varchar, "text" varchar)[],
        "method" varchar, score double)[] not null,
    final_diagnosis varchar,
    raw varchar not null,
    thinking varchar not null,
    repaired boolean not null,
    calls integer not null,
    prompt_tokens bigint not null,
    completion_tokens bigint not null,
    cost_usd double not null,
    seconds double not null,
    cached_calls integer not null,       -- answered by the call cache: they are in no other column
    -- attempts that failed
    faults struct(error_class varchar, message varchar, raw varchar)[] not null,
    primary key (trajectory_id, number)
);

-- A failure stays on record; `resolved` tells when a later attempt succeeded.
create table if not exists failures (
    run_id varchar not null,
    stage varchar not null,              -- read, environment, rollout
    case_id varchar not null,
    teacher varchar,
    trajectory_id varchar,
    turn integer,
    attempt integer not null,
    error_class varchar not null,
    message varchar not null,
    path varchar not null,
    raw varchar,
    time timestamptz not null,
    resolved timestamptz,
    calls integer not null,              -- what was spent on it; none of it is in a stored turn
    prompt_tokens bigint not null,
    completion_tokens bigint not null,
    cost_usd double not null,
    seconds double not null,
    cached_calls integer not null,
    -- over all its turns, the last one's too
    faults struct(error_class varchar, message varchar, raw varchar)[] not null
);

-- Of a judge, whose name stands in `teacher`: which of its judgings failed; null: any of them.
alter table failures add column if not exists protocol varchar;
alter table failures add column if not exists repeat integer;

create table if not exists links (
    graph varchar not null,              -- name and version of the graph
    kind varchar not null,               -- diagnosis, test
    "text" varchar not null,
    node integer,                        -- null: unlinked
    name varchar,
    "method" varchar not null,
    score double not null,
    primary key (graph, kind, "text")
);

create table if not exists verdicts (
    trajectory_id varchar primary key,
    strategy varchar not null,
    threshold double,
    status varchar not null,             -- kept, truncated, discarded, unscorable
    reason varchar not null,
    last_turn integer,                   -- t*
    removed_turns integer[] not null,
    kept_turns integer[] not null
);

-- DTC and RAC of every turn on the whole path of a trajectory (a branch has rows for its prefix
-- too).
create table if not exists turn_scores (
    trajectory_id varchar not null,
    number integer not null,
    dtc integer,                         -- null: unknown
    rac double,                          -- null: nothing changed, or unknown
    primary key (trajectory_id, number)
);
-- What RAC rests on, null at turn 1: diagnoses added or removed, those of them at no known
-- distance to any test, and entries of
-- the two differentials that are no node. Added by name, so that stores of an earlier version have
-- them, too.
alter table turn_scores add column if not exists changed integer;
alter table turn_scores add column if not exists unknown integer;
alter table turn_scores add column if not exists unlinked integer;
-- The turn's orders, and those of them that are nodes.
alter table turn_scores add column if not exists orders integer;
alter table turn_scores add column if not exists linked_orders integer;

-- RAC without any connection between tests and changes, a sample (kg/calibration.py): 'orders': of
-- changes as they were after random tests; 'changes': of random changes after tests as they were.
create table if not exists rac_null (
    kind varchar not null,
    rac double not null
);

-- Of an evaluation: what a judge found in a trajectory under the rules of a protocol
-- (evaluation/judging.py).
create table if not exists judgements (
    trajectory_id varchar not null,
    protocol varchar not null,
    judge varchar not null,              -- its name, and a hash of all that its verdicts depend on
    repeat integer not null,
    -- {tests: {requested: [[name, hit]], documented: [...]}, correct, note, usage}
    judgement json not null,
    primary key (trajectory_id, protocol, judge, repeat)
);

-- What the summary, the scores and the dataset are about: trajectories in the present environment
-- of their case.
-- A case whose report changed has a new environment; what was played in the old one stays in the
-- store, and out of these.
create or replace view current_trajectories as
select trajectories.* from trajectories join cases using (case_id, environment_id);

-- Which turns belong to the path of which trajectory: (path_id, number) -> the trajectory that
-- played the turn.
create or replace view paths as
with recursive up as (
    select trajectory_id as path_id, trajectory_id as owner_id, parent_id, branch_turn,
        cast(null as integer) as upto
    from trajectories
    union all
    select up.path_id, parent.trajectory_id, parent.parent_id, parent.branch_turn,
           least(coalesce(up.upto, up.branch_turn), up.branch_turn)
    from up join trajectories as parent on parent.trajectory_id = up.parent_id
)
select up.path_id, up.owner_id, turns.number
from up join turns on turns.trajectory_id = up.owner_id
where up.upto is null or turns.number <= up.upto;

-- What became of every stored turn: kept when any path through it keeps it (status: that path's),
-- else the fate on its own path.
create or replace view turn_fates as
select turns.trajectory_id, turns.number,
    bool_or(list_contains(verdicts.kept_turns, turns.number)) as kept,
    any_value(verdicts.status) filter (where list_contains(verdicts.kept_turns,
        turns.number)) as status,
    case
        when bool_or(list_contains(verdicts.kept_turns, turns.number)) then 'kept'
        when any_value(own.trajectory_id) is null then 'not scored'
        when any_value(own.status) in ('discarded',
            'unscorable') then any_value(own.status) || ': ' || any_value(own.reason)
        when list_contains(any_value(own.removed_turns),
            turns.number) then 'removed: tests ineffective'
        when any_value(own.reason) like 'commitment_dropped%' then 'cut: wrong commitment'
        else 'cut: after t*'
    end as fate
from turns
join current_trajectories as played on played.trajectory_id = turns.trajectory_id
left join paths on paths.owner_id = turns.trajectory_id and paths.number = turns.number
left join verdicts on verdicts.trajectory_id = paths.path_id
left join verdicts as own on own.trajectory_id = turns.trajectory_id
group by turns.trajectory_id, turns.number;

-- Siblings (same parent, same shared turns) that played the same: turn by turn the same tests and
-- the same leading hypothesis.
-- `first_id` is the one that was stored first (then by teacher and sample); `same_replies`: to the
-- letter, too.
create or replace view duplicates as
with played as (
    select trajectory_id, any_value(environment_id) as environment_id,
        any_value(coalesce(parent_id, '')) as parent_id,
        any_value(branch_turn) as branch_turn, any_value(stored) as stored,
            any_value(teacher) as teacher, any_value(sample) as sample,
        list(list_sort([lower(test) for test in tests]) order by number) as tests,
        list(lower(coalesce(turns.final_diagnosis, differential[1].diagnosis))
            order by number) as leaders,
        list(raw order by number) as replies
    from turns join current_trajectories using (trajectory_id)
    group by trajectory_id
), placed as (
    select trajectory_id, first_value(trajectory_id) over same as first_id,
        replies = first_value(replies) over same as same_replies
    from played
    window same as (
        partition by environment_id, parent_id, branch_turn, tests, leaders order by stored,
            teacher, sample, trajectory_id
    )
)
select trajectory_id, first_id, same_replies from placed where trajectory_id <> first_id;

-- What tells a broken or poisoned teacher, as shares of the turns that it played: replies that had
-- to be asked again, that are to the letter those to another case (a copy of it under another id is
-- none), and that are in letters beyond ASCII (two bytes and more each) where the case is not.
create or replace view teacher_rates as
with played as (
    select teacher, repaired, hash(initial_observation) as case_text, hash(raw) as reply,
        strlen(reasoning) > 1.5 * length(reasoning)
            and strlen(initial_observation) <= 1.5 * length(initial_observation) as is_foreign
    from turns join current_trajectories using (trajectory_id)
    join environments using (environment_id, case_id)
    -- Without a call it is an embedded teacher's, which no server can have altered.
    where style <> 'gold' and calls + cached_calls > 0
), compared as (
    select *, min(case_text) over same <> max(case_text) over same as is_identical
    from played window same as (partition by teacher, reply)
)
select teacher, count(*) as turns, avg(repaired::integer) as repaired,
    avg(is_identical::integer) as identical, avg(is_foreign::integer) as "foreign"
from compared group by teacher;

-- Kept turns that say again what another kept turn of the same teacher and style says, to the letter
-- and after the same replies and results: their prompt and their reply are the same. A server that
-- ignores the seed gives every rollout of a case the same. Of each group the first by branch and
-- sample, not by time, is no repeat, so that a resumed run keeps the same one.
create or replace view repeated_turns as
with written as (
    select path_id, owner_id, turns.number, raw, thinking,
        list(md5(raw || to_json(answers)::varchar)) over (
            partition by path_id order by turns.number
            rows between unbounded preceding and 1 preceding
        ) as earlier
    from paths join turns on turns.trajectory_id = owner_id and turns.number = paths.number
)
select played.trajectory_id, written.number, teacher, style, case_id
from written
join current_trajectories as played on played.trajectory_id = owner_id and path_id = owner_id
join turn_fates on turn_fates.trajectory_id = owner_id and turn_fates.number = written.number
where turn_fates.kept
qualify row_number() over (
    partition by environment_id, teacher, style, t_max, written.number, earlier, raw, thinking
    order by branch_turn, sample, played.trajectory_id
) > 1;
