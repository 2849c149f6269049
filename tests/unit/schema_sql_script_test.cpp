#include <doctest/doctest.h>

#include "engine/schema/sql_script.hpp"

using namespace walferry::schema;

namespace {

// As written by pg_restore 15 --verbose from a 14 source, shortened.
constexpr std::string_view captured = R"script(--
-- PostgreSQL database dump
--

\restrict euLs3C1yPWbx4EHvKl6KUbfkpSL5tx88YrfzU0zWg3EwRn124M1r3dgP80qmPSf

-- Dumped from database version 14.23
-- Dumped by pg_dump version 15.20 (Debian 15.20-0+deb12u1)

-- Started on 2026-11-21 00:00:03 UTC

SET statement_timeout = 0;
SELECT pg_catalog.set_config('search_path', '', false);

SET default_tablespace = '';

--
-- TOC entry 3598 (class 2606 OID 21905)
-- Dependencies: 216
-- Name: t1 t1_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
-- Data Pos: 0
--

ALTER TABLE ONLY public.t1
    ADD CONSTRAINT t1_pkey PRIMARY KEY (id);


--
-- TOC entry 493 (class 1255 OID 22084)
-- Dependencies: 3598 6 216 216
-- Name: atomic_f(integer); Type: FUNCTION; Schema: public; Owner: postgres
-- Data Pos: 0
--

CREATE FUNCTION public.atomic_f(i integer) RETURNS bigint
    LANGUAGE sql STABLE
    BEGIN ATOMIC
 SELECT count(*) AS count
    FROM public.t1;
 SELECT (5)::bigint AS int8;
END;


SET default_tablespace = "fast ; ""disks""";

SET default_table_access_method = heap;

--
-- TOC entry 3857 (class 0 OID 0)
-- Dependencies: 3590
-- Name: INDEX "ix ON ""only"" (x"; Type: COMMENT; Schema: Od.d "S; Owner: postgres
-- Data Pos: 0
--

COMMENT ON INDEX "Od.d ""S"."ix ON ""only"" (x" IS '
--
-- TOC entry 77 (class 1259 OID 12)
-- Name: bogus; Type: INDEX; Schema: public; Owner: postgres
--

CREATE INDEX bogus ON public.nothing (a);
\unrestrict
$$ \ E''';


--
-- TOC entry 6 (class 2615 OID 2200)
-- Name: public; Type: SCHEMA; Schema: -; Owner: postgres
-- Data Pos: 0
--

-- *not* creating schema, since initdb creates it


--
-- TOC entry 9 (class 1255 OID 4)
-- Name: tf(); Type: FUNCTION; Schema: public; Owner: postgres
-- Data Pos: 0
--

CREATE FUNCTION public.tf() RETURNS trigger
    LANGUAGE plpgsql
    AS $_$
--
-- TOC entry 5 (class 1 OID 2)
-- Name: q; Type: TABLE; Schema: a; Owner: b
--
BEGIN
SET default_tablespace = '';
RETURN NEW; END $_$;


-- Completed on 2026-11-21 00:00:03 UTC

--
-- PostgreSQL database dump complete
--

\unrestrict euLs3C1yPWbx4EHvKl6KUbfkpSL5tx88YrfzU0zWg3EwRn124M1r3dgP80qmPSf

)script";

std::vector<std::string> texts(std::string_view sql) {
  std::vector<std::string> result;
  for (const Token& token : first_statement(sql)) result.push_back(token.text);
  return result;
}

}  // namespace

TEST_CASE("a script is cut into its entries, and text that looks like a header stays text") {
  const Script script = split_script(captured);
  REQUIRE(script.entries.size() == 4);

  const ScriptEntry& constraint = script.entries[0];
  CHECK(constraint.dump_id == 3598);
  CHECK(constraint.class_oid == 2606);
  CHECK(constraint.oid == 21905);
  CHECK(constraint.depends_on == std::vector<int>{216});
  CHECK(constraint.type == "CONSTRAINT");
  CHECK(constraint.tag == "t1 t1_pkey");
  CHECK(constraint.sql == "ALTER TABLE ONLY public.t1\n    ADD CONSTRAINT t1_pkey PRIMARY KEY (id);");

  CHECK(script.entries[1].depends_on == std::vector<int>{3598, 6, 216, 216});
  CHECK(script.entries[1].sql.ends_with("END;"));

  CHECK(script.entries[2].sql.starts_with("COMMENT ON INDEX"));
  CHECK(script.entries[2].sql.ends_with("\\unrestrict\n$$ \\ E''';"));

  CHECK(script.entries[3].dump_id == 9);
  CHECK(script.entries[3].sql.ends_with("RETURN NEW; END $_$;"));
}

TEST_CASE("an entry without statements is left out and the preamble belongs to no entry") {
  const Script script = split_script(captured);
  for (const ScriptEntry& entry : script.entries) CHECK(entry.type != "SCHEMA");
  CHECK(script.preamble.find("SET statement_timeout = 0;") != std::string::npos);
  CHECK(script.preamble.find("restrict") == std::string::npos);
}

TEST_CASE("settings between entries hold for those that follow") {
  const Script script = split_script(captured);
  REQUIRE(script.entries.size() == 4);
  CHECK(script.entries[0].settings == std::vector<std::string>{"default_tablespace = ''"});
  CHECK(script.entries[1].settings == std::vector<std::string>{"default_tablespace = ''"});
  const std::vector<std::string> both{"default_tablespace = \"fast ; \"\"disks\"\"\"",
                                      "default_table_access_method = heap"};
  CHECK(script.entries[2].settings == both);
  CHECK(script.entries[3].settings == both);
  CHECK(script.entries[1].sql.find("default_table") == std::string::npos);
}

TEST_CASE("every prefix of a script is split without reading past its end") {
  for (std::size_t length = 0; length <= captured.size(); ++length) {
    const Script script = split_script(captured.substr(0, length));
    CHECK(script.entries.size() <= 4);
  }
}

TEST_CASE("tokens keep names exact and end at the statement's semicolon") {
  CHECK(texts("CREATE INDEX \"a\"\"b;\" ON ONLY s.\"T\"; DROP") ==
        std::vector<std::string>{"CREATE", "INDEX", "a\"b;", "ON", "ONLY", "s", ".", "T"});
  CHECK(texts("SELECT E'\\';' , ';' /* ; /* ; */ ; */ , $a$;$b$;$a$;x").size() == 6);
  CHECK(texts("DO (a; b); c") == std::vector<std::string>{"DO", "(", "a", ";", "b", ")"});
  CHECK(texts("a$b$ + $1 - e'x'") == std::vector<std::string>{"a$b$", "+", "$", "1", "-", "e'x'"});
  CHECK(texts("").empty());
}

TEST_CASE("a quoted name is never a key word") {
  const std::vector<Token> tokens = first_statement("\"ON\" ON");
  REQUIRE(tokens.size() == 2);
  CHECK_FALSE(tokens[0].is("ON"));
  CHECK(tokens[0].is_name());
  CHECK(tokens[1].is("ON"));
}

TEST_CASE("statements are split at top-level semicolons, without comments and psql lines") {
  const std::vector<std::string> statements =
      split_statements("\\restrict x\nDROP A; -- note ;\nDROP \"b;\";\nCREATE RULE r DO (x; y);\nlast");
  CHECK(statements == std::vector<std::string>{"DROP A;", "DROP \"b;\";", "CREATE RULE r DO (x; y);", "last"});
}

TEST_CASE("the counter that some servers keep among a column's options is left out, all else stays") {
  const std::string table = "CREATE TABLE s.t (a int DEFAULT f('pg_attver=1;'));";
  CHECK(without_server_counters(table) == table);
  CHECK(without_server_counters(table +
                                "\nALTER TABLE ONLY s.t ALTER COLUMN \"x;\ny\" SET (pg_attver=26489656);\nEND;") ==
        table + "\nEND;");
  CHECK(without_server_counters("ALTER TABLE t ALTER COLUMN a SET (n_distinct=5, pg_attver=7);") ==
        "ALTER TABLE t ALTER COLUMN a SET (n_distinct=5);");
  CHECK(without_server_counters("ALTER TABLE t ALTER COLUMN a SET (pg_attver=7, n_distinct=-0.5);") ==
        "ALTER TABLE t ALTER COLUMN a SET ( n_distinct=-0.5);");
  CHECK(without_server_counters(";;ALTER TABLE t ALTER COLUMN a SET (pg_attver=7) ;; -- what stands beside it") ==
        ";;; -- what stands beside it");
  CHECK(without_server_counters("COMMENT ON TABLE t IS '(pg_attver=7)';") == "COMMENT ON TABLE t IS '(pg_attver=7)';");
}
