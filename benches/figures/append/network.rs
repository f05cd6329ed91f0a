//! A network between the writers and the server: answers come a little later.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, UnixStream};

/// How much later. The timer is no finer than this.
const DELAY: Duration = Duration::from_millis(1);

/// Connections to a database by a way that holds up every answer. It ends with the runtime.
pub(super) async fn pool(socket: PathBuf, database: &str) -> anyhow::Result<PgPool> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = UnixStream::connect(&socket).await else { return };
            let _ = client.set_nodelay(true);
            let (mut questions, mut to_client) = client.into_split();
            let (mut answers, mut to_server) = server.into_split();
            tokio::spawn(async move { copy(&mut questions, &mut to_server).await });
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = answers.read(&mut buffer).await {
                    tokio::time::sleep(DELAY).await;
                    to_client.write_all(&buffer[..length]).await?;
                }
                anyhow::Ok(())
            });
        }
    });
    let options = PgConnectOptions::new()
        .host("127.0.0.1")
        .port(port)
        .username("postgres")
        .database(database)
        .ssl_mode(PgSslMode::Disable);
    Ok(PgPoolOptions::new().max_connections(20).test_before_acquire(false).connect_with(options).await?)
}
