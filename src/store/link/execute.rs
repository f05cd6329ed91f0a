//! How a statement goes over a link: as it is, or in a unit of its own and without a name.

use futures_util::future::{self, BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo, Postgres};
use sqlx::{Either, Execute, Executor, SqlStr};

use super::Link;

impl Link<'_> {
    /// Whether this statement needs a unit of its own. One without arguments and answers in one message needs none.
    fn wants_unit<E>(&self, query: &Unnamed<E>) -> bool {
        !self.is_unit() && query.arguments.is_some()
    }

    /// Ends a unit that was one statement, as that went.
    async fn end<T>(self, outcome: sqlx::Result<T>) -> sqlx::Result<T> {
        match outcome {
            Ok(answer) => self.commit().await.map(|()| answer),
            Err(error) => {
                // Whatever comes of it, nothing was committed.
                let _ = self.rollback().await;
                Err(error)
            }
        }
    }
}

impl<'c> Executor<'c> for &'c mut Link<'_> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.is_pooled() {
            return self.driver().fetch_many(query);
        }
        let query = match Unnamed::of(query) {
            Ok(query) if !self.wants_unit(&query) => return self.driver().fetch_many(query),
            Ok(query) => query,
            Err(error) => return stream::once(future::ready(Err(error))).boxed(),
        };
        let answers = async move {
            let mut unit = self.begin().await?;
            let answers: sqlx::Result<Vec<_>> = unit.driver().fetch_many(query).try_collect().await;
            unit.end(answers).await
        };
        stream::once(answers).map_ok(|answers| stream::iter(answers).map(Ok)).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.is_pooled() {
            return self.driver().fetch_optional(query);
        }
        let query = match Unnamed::of(query) {
            Ok(query) if !self.wants_unit(&query) => return self.driver().fetch_optional(query),
            Ok(query) => query,
            Err(error) => return future::ready(Err(error)).boxed(),
        };
        async move {
            let mut unit = self.begin().await?;
            let answer = unit.driver().fetch_optional(query).await;
            unit.end(answer).await
        }
        .boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        self.driver().prepare_with(sql, parameters)
    }
}

/// A statement that is prepared without a name.
struct Unnamed<E> {
    query: E,
    /// `None` for one that is not prepared at all.
    arguments: Option<PgArguments>,
}

impl<'q, E: Execute<'q, Postgres>> Unnamed<E> {
    fn of(mut query: E) -> sqlx::Result<Self> {
        let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?;
        Ok(Self { query, arguments })
    }
}

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Unnamed<E> {
    fn sql(self) -> SqlStr {
        self.query.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        None
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, sqlx::error::BoxDynError> {
        Ok(self.arguments.take())
    }

    fn persistent(&self) -> bool {
        false
    }
}
